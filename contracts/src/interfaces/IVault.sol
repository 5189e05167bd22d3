// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ICheckpoints} from "./ICheckpoints.sol";
import {IInbox} from "./IInbox.sol";

/// @title The collateral
/// @notice Holds one token. Money comes in by `deposit` and leaves by `claim` only, against a proof
/// in a final checkpoint; nobody owns the contract, nothing can be upgraded, and tokens sent to it
/// directly
/// stay in it and harm nothing.
///
/// The constructor makes the inbox and the checkpoints contract, so that the three know each other
/// from the first block and can never be pointed elsewhere.
///
/// To come, here: outflow caps and pauses (both delay claims, never cancel them), escape and
/// refunds after a freeze.
interface IVault {
    /// @notice `amount` arrived for a subaccount as message `inboxIndex`.
    event Deposited(
        address indexed wallet,
        uint8 indexed subaccount,
        address indexed from,
        uint256 amount,
        uint256 inboxIndex
    );
    /// @notice Withdrawal `index` was paid.
    event Claimed(uint64 indexed index, address indexed recipient, uint256 amount, uint64 number);

    /// @notice The token's address has no code.
    error NotAToken(address token);
    /// @notice A minimum of zero would let the inbox fill for nothing.
    error ZeroMinimum();
    /// @notice Nobody could ever spend the deposit.
    error ZeroWallet();
    /// @notice Subaccounts are 0 to 31.
    error BadSubaccount(uint8 subaccount);
    /// @notice Less than the minimum arrived.
    error DepositTooSmall(uint256 received, uint256 minimum);
    /// @notice The withdrawal was paid already.
    error AlreadyClaimed(uint64 index);
    /// @notice The proof does not lead to the checkpoint's withdrawals root.
    error BadProof();
    /// @notice Payouts would exceed the `withdrawnTotal` of the checkpoints claimed against: only
    /// `left` may still be paid.
    error ClaimsExceedWithdrawn(uint256 amount, uint256 left);
    /// @notice A payout took another amount out of the vault than it should have.
    error TransferMismatch();

    /// @notice Pay in `amount` of the token, for a subaccount of `wallet`. What really arrives is
    /// credited. @return inboxIndex The deposit's message number in the inbox.
    function deposit(uint256 amount, address wallet, uint8 subaccount)
        external
        returns (uint256 inboxIndex);

    /// @notice Pay a withdrawal to its recipient, whoever calls.
    /// @param number A final checkpoint.
    /// @param index, recipient, amount The withdrawal's leaf.
    /// @param proof The 32 siblings from the leaf to the checkpoint's withdrawals root, lowest
    /// first.
    function claim(
        uint64 number,
        uint64 index,
        address recipient,
        uint256 amount,
        bytes32[] calldata proof
    ) external;

    /// @notice Whether withdrawal `index` was paid.
    function claimed(uint64 index) external view returns (bool);

    /// @notice Sum of all withdrawals paid.
    function claimedTotal() external view returns (uint256);

    /// @notice The collateral token.
    function token() external view returns (IERC20);

    /// @notice The least that a deposit must bring.
    function minimumDeposit() external view returns (uint256);

    /// @notice The inbox made with this vault.
    function inbox() external view returns (IInbox);

    /// @notice The checkpoints contract made with this vault.
    function checkpoints() external view returns (ICheckpoints);
}
