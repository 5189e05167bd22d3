// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The queue from chain to network
/// @notice An append-only, hash-chained list of messages. The network must give every message an
/// outcome (a refusal is one), in order; `Checkpoints` holds it to that. So a deposit can be
/// neither invented, skipped, reordered nor ignored.
///
/// Message: `abi.encode(uint256 kind, address wallet, uint256 subaccount, uint256 amount)`.
/// Chain: `hash(0) = keccak256("fairlane.inbox.v1")`,
/// `hash(k) = keccak256(hash(k-1) || keccak256(message(k)))`.
///
/// Kind 1 is a deposit. Kinds 2 to 5 are reserved for what a wallet may force itself (withdraw,
/// cancel all, close, revoke sessions): functions of this contract, to come, that enqueue with
/// amount zero or the amount asked for and never raise `depositedTotal`.
interface IInbox {
    /// @notice What is known of the queue once it is `count` messages long.
    /// @param chained Hash of the first `count` messages.
    /// @param depositedTotal Sum of the deposits among them, micro-USDC.
    /// @param nextTime When the message after them entered, seconds; 0 while there is none. Whoever
    /// consumed `count` messages has let that one wait since then.
    struct Entry {
        bytes32 chained;
        uint64 depositedTotal;
        uint64 nextTime;
    }

    /// @notice Message number `index` (the first is 1) entered; `chained` is the hash after it.
    event Enqueued(uint256 indexed index, bytes message, bytes32 chained);

    /// @notice Only the vault enqueues deposits.
    error OnlyVault(address caller);
    /// @notice The sum of all deposits ever would leave the range that the network counts in: at
    /// most `limit` may still come.
    error DepositedTooMuch(uint256 amount, uint256 limit);
    /// @notice The queue is not that long.
    error UnknownCount(uint256 asked, uint256 count);

    /// @notice Append a deposit. The caller is the vault, which holds the money already.
    /// @return index The message's number.
    function enqueueDeposit(address wallet, uint8 subaccount, uint256 amount)
        external
        returns (uint256 index);

    /// @notice The vault whose deposits are queued here.
    function vault() external view returns (address);

    /// @notice How many messages there are.
    function count() external view returns (uint256);

    /// @notice What is known at `count_` messages; `UnknownCount` when there are fewer.
    function entry(uint256 count_) external view returns (Entry memory);
}
