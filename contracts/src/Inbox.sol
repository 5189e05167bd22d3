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

    /// @dev At each count what is known of the queue; the first entry is that of the empty one.
    Entry[] private _entries;

    constructor(address vault_) {
        vault = vault_;
        _entries.push(Entry(keccak256("fairlane.inbox.v1"), 0, uint64(block.timestamp)));
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
        return _entries.length - 1;
    }

    /// @inheritdoc IInbox
    function entry(uint256 count_) external view returns (Entry memory) {
        return _at(count_);
    }

    /// @inheritdoc IInbox
    function consumed(uint256 count_)
        external
        view
        returns (bytes32 chained, uint256 depositedTotal, uint256 nextTime)
    {
        Entry storage found = _at(count_);
        nextTime = count_ == count() ? type(uint256).max : _entries[count_ + 1].time;
        return (found.chained, found.depositedTotal, nextTime);
    }

    /// @param deposited What of `amount` is money that came in: nothing, for a forced request.
    function _enqueue(
        uint256 kind,
        address wallet,
        uint256 subaccount,
        uint256 amount,
        uint256 deposited
    ) private returns (uint256 index) {
        index = _entries.length;
        Entry storage last = _entries[index - 1];
        uint256 limit = DEPOSITED_MAX - last.depositedTotal;
        if (deposited > limit) {
            revert DepositedTooMuch(deposited, limit);
        }
        bytes memory message = abi.encode(kind, wallet, subaccount, amount);
        bytes32 chained = keccak256(bytes.concat(last.chained, keccak256(message)));
        _entries.push(
            Entry(chained, last.depositedTotal + uint128(deposited), uint64(block.timestamp))
        );
        emit Enqueued(index, message, chained);
    }

    function _at(uint256 count_) private view returns (Entry storage) {
        if (count_ >= _entries.length) revert UnknownCount(count_, count());
        return _entries[count_];
    }
}
