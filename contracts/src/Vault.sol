// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {Checkpoints} from "./Checkpoints.sol";
import {Inbox} from "./Inbox.sol";
import {Merkle} from "./Merkle.sol";
import {CheckpointsConfig, ICheckpoints} from "./interfaces/ICheckpoints.sol";
import {IInbox} from "./interfaces/IInbox.sol";
import {IVault} from "./interfaces/IVault.sol";

/// @notice See `IVault`.
contract Vault is IVault, ReentrancyGuardTransient {
    using BitMaps for BitMaps.BitMap;
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    uint8 public constant SUBACCOUNT_MAX = 31;

    /// @dev One slot, so that the first claim need not pay for a fresh one. `ceiling` is the
    /// largest `withdrawnTotal` of the final checkpoints claimed against: the withdrawals tree only
    /// grows, so
    /// honest claims stay below it, whichever checkpoint each names.
    struct Payouts {
        uint64 minimumDeposit;
        uint96 total;
        uint96 ceiling;
    }

    /// @inheritdoc IVault
    IERC20 public immutable token;
    /// @inheritdoc IVault
    IInbox public immutable inbox;
    /// @inheritdoc IVault
    ICheckpoints public immutable checkpoints;

    Payouts private _payouts;
    BitMaps.BitMap private _claimed;

    constructor(IERC20 token_, uint64 minimumDeposit_, CheckpointsConfig memory config) {
        if (address(token_).code.length == 0) revert NotAToken(address(token_));
        if (minimumDeposit_ == 0) revert ZeroMinimum();
        token = token_;
        _payouts.minimumDeposit = minimumDeposit_;
        inbox = new Inbox(address(this));
        checkpoints = new Checkpoints(inbox, config);
    }

    /// @inheritdoc IVault
    function deposit(uint256 amount, address wallet, uint8 subaccount)
        external
        nonReentrant
        returns (uint256 inboxIndex)
    {
        if (wallet == address(0)) revert ZeroWallet();
        if (subaccount > SUBACCOUNT_MAX) revert BadSubaccount(subaccount);
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        uint256 minimum = minimumDeposit();
        if (received < minimum) revert DepositTooSmall(received, minimum);
        inboxIndex = inbox.enqueueDeposit(wallet, subaccount, received);
        emit Deposited(wallet, subaccount, msg.sender, received, inboxIndex);
    }

    /// @inheritdoc IVault
    function claim(
        uint64 number,
        uint64 index,
        address recipient,
        uint256 amount,
        bytes32[] calldata proof
    ) external nonReentrant {
        (bytes32 root, uint256 withdrawn) = checkpoints.finalWithdrawals(number);
        if (_claimed.get(index)) revert AlreadyClaimed(index);
        bytes32 leaf = Merkle.withdrawalLeaf(index, recipient, amount);
        if (!Merkle.verify(root, leaf, index, proof)) revert BadProof();
        _claimed.set(index);
        _count(amount, withdrawn);
        emit Claimed(index, recipient, amount, number);
        uint256 before = token.balanceOf(address(this));
        token.safeTransfer(recipient, amount);
        // What a token takes beyond the amount would be the others' money.
        if (token.balanceOf(address(this)) + amount != before) revert TransferMismatch();
    }

    /// @inheritdoc IVault
    function minimumDeposit() public view returns (uint256) {
        return _payouts.minimumDeposit;
    }

    /// @inheritdoc IVault
    function claimed(uint64 index) external view returns (bool) {
        return _claimed.get(index);
    }

    /// @inheritdoc IVault
    function claimedTotal() external view returns (uint256) {
        return _payouts.total;
    }

    /// @dev Add a payout to the total, which never passes what checkpoints say was withdrawn.
    function _count(uint256 amount, uint256 withdrawn) private {
        Payouts memory payouts = _payouts;
        if (withdrawn > payouts.ceiling) payouts.ceiling = withdrawn.toUint96();
        uint256 left = payouts.ceiling - payouts.total;
        if (amount > left) revert ClaimsExceedWithdrawn(amount, left);
        payouts.total += uint96(amount);
        _payouts = payouts;
    }
}
