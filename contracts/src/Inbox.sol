// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInbox} from "./interfaces/IInbox.sol";

/// @notice See `IInbox`.
contract Inbox is IInbox {
    /// @dev What the network counts in: signed 64-bit micro-USDC.
    uint256 public constant DEPOSITED_MAX = uint64(type(int64).max);
    uint256 public constant KIND_DEPOSIT = 1;

    /// @inheritdoc IInbox
    address public immutable vault;

    /// @dev The entries: one more than messages, the first being that of the empty queue.
    uint256 private _length = 1;
    mapping(uint256 count => Entry) private _entries;

    constructor(address vault_) {
        vault = vault_;
        _entries[0].chained = keccak256("fairlane.inbox.v1");
    }

    /// @inheritdoc IInbox
    function enqueueDeposit(address wallet, uint8 subaccount, uint256 amount)
        external
        returns (uint256 index)
    {
        if (msg.sender != vault) revert OnlyVault(msg.sender);
        return _enqueue(KIND_DEPOSIT, wallet, subaccount, amount, amount);
    }

    /// @inheritdoc IInbox
    function count() public view returns (uint256) {
        return _length - 1;
    }

    /// @inheritdoc IInbox
    function entry(uint256 count_) external view returns (Entry memory found) {
        found = _entries[count_];
        if (found.chained == 0) revert UnknownCount(count_, count());
    }

    /// @param deposited What of `amount` is money that came in: nothing, for a forced request.
    function _enqueue(
        uint256 kind,
        address wallet,
        uint256 subaccount,
        uint256 amount,
        uint256 deposited
    ) private returns (uint256 index) {
        index = _length;
        Entry storage last = _entries[index - 1];
        uint256 limit = DEPOSITED_MAX - last.depositedTotal;
        if (deposited > limit) revert DepositedTooMuch(deposited, limit);
        bytes memory message = abi.encode(kind, wallet, subaccount, amount);
        bytes32 chained = keccak256(bytes.concat(last.chained, keccak256(message)));
        uint64 total = last.depositedTotal + uint64(deposited);
        last.nextTime = uint64(block.timestamp);
        _entries[index] = Entry({chained: chained, depositedTotal: total, nextTime: 0});
        _length = index + 1;
        emit Enqueued(index, message, chained);
    }
}
