// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInbox} from "./IInbox.sol";

/// @notice A commitment of the network to its state; field order is EIP-712 order.
/// @param epoch Committee whose group key signs.
/// @param number blockTimeMs / intervalMs; gaps are allowed.
/// @param height Height of the committed block after which the state was taken.
/// @param blockTimeMs Time of that block, milliseconds since 1970.
/// @param stateRoot Root over accounts and instrument values; escape proves against it.
/// @param snapshotRoot Root over the chunks of the state snapshot from which replicas synchronise.
/// @param withdrawalsRoot Root of the append-only tree of withdrawals.
/// @param withdrawnTotal Sum of all leaves of that tree, micro-USDC.
/// @param inboxCount Messages of the inbox that were given an outcome.
/// @param inboxHash The inbox's own hash at that count.
/// @param netTotal Sum of all equities, negative ones, insurance and fees included, micro-USDC.
/// @param positiveTotal Sum of the positive equities without the insurance fund, micro-USDC.
/// @param dataSince Base of the posted data; 0 until escape is built.
/// @param dataHash Hash of the posted data; keccak256("") until escape is built.
/// @param nextEpochHash Announces the next committee; 0 until epochs change.
struct Checkpoint {
    uint64 epoch;
    uint64 number;
    uint64 height;
    uint64 blockTimeMs;
    bytes32 stateRoot;
    bytes32 snapshotRoot;
    bytes32 withdrawalsRoot;
    uint256 withdrawnTotal;
    uint64 inboxCount;
    bytes32 inboxHash;
    int256 netTotal;
    uint256 positiveTotal;
    uint64 dataSince;
    bytes32 dataHash;
    bytes32 nextEpochHash;
}

/// @notice What is fixed when the contracts are made.
/// @param intervalMs Block time between checkpoints, milliseconds.
/// @param inclusionDelay Age in seconds from which a message of the inbox must be consumed.
/// @param disputeDelay Seconds from acceptance to finality.
/// @param groupKey Epoch 1's BLS12-381 group key: G2, 256 bytes, EIP-2537 encoding.
struct CheckpointsConfig {
    uint64 intervalMs;
    uint64 inclusionDelay;
    uint64 disputeDelay;
    bytes groupKey;
}

/// @title Accepted and final checkpoints
/// @notice Accepts a checkpoint when the epoch's group key signed it and it agrees with everything
/// that the chain knows for itself: the clock, the inbox, the sum of deposits. Acceptance is
/// one-way: nothing
/// is ever replaced or removed. Anyone may submit.
///
/// To come, here: data posting (`dataSince`, `dataHash`), epoch change (`nextEpochHash`, a key per
/// epoch), disputes inside `disputeDelay`, and the freeze, after which nothing is accepted any
/// more.
interface ICheckpoints {
    /// @notice What is kept of an accepted checkpoint.
    /// @param stateRoot, withdrawalsRoot As submitted.
    /// @param acceptedAt When it was accepted, seconds; 0 means: no such checkpoint.
    /// @param inboxCount, withdrawnTotal, positiveTotal As submitted; escape needs them.
    struct Accepted {
        bytes32 withdrawalsRoot;
        bytes32 stateRoot;
        uint64 acceptedAt;
        uint64 inboxCount;
        uint64 withdrawnTotal;
        uint64 positiveTotal;
    }

    /// @notice A checkpoint was accepted; `digest` is what the committee signed.
    event CheckpointAccepted(
        uint64 indexed number,
        uint64 height,
        bytes32 digest,
        bytes32 stateRoot,
        bytes32 withdrawalsRoot,
        uint64 inboxCount
    );

    /// @notice The interval is zero.
    error ZeroInterval();
    /// @notice The group key is not a point of G2's subgroup, or it is the identity.
    error BadGroupKey();
    /// @notice Another epoch's key signs now.
    error WrongEpoch(uint64 given, uint64 current);
    /// @notice The number must be above the last accepted one.
    error NumberNotGrowing(uint64 given, uint64 accepted);
    /// @notice The height must be above that of the last accepted checkpoint.
    error HeightNotGrowing(uint64 given, uint64 accepted);
    /// @notice The number is not blockTimeMs / intervalMs.
    error WrongNumber(uint64 given, uint64 expected);
    /// @notice The block's time is too far ahead of the chain's.
    error TimeAhead(uint64 givenMs, uint256 limitMs);
    /// @notice A root of zero proves nothing and is never accepted.
    error ZeroRoot();
    /// @notice A sum is beyond what the network counts in.
    error TotalTooLarge(uint256 given);
    /// @notice A field whose meaning is still to come does not have its fixed value.
    error ReservedField();
    /// @notice Consumed messages cannot be given back.
    error InboxCountWentBack(uint64 given, uint64 accepted);
    /// @notice The hash is not the inbox's own at that count.
    error InboxHashMismatch(bytes32 given, bytes32 expected);
    /// @notice A message older than `inclusionDelay` was left out, and fewer than 64 were consumed.
    error InboxIgnored(uint64 inboxCount);
    /// @notice Withdrawals cannot be taken back.
    error WithdrawnTotalWentBack(uint256 given, uint256 accepted);
    /// @notice Equities do not add up to deposits minus withdrawals.
    error NetTotalMismatch(int256 given, int256 expected);
    /// @notice The signature is not the epoch's group key's over this checkpoint.
    error BadSignature();
    /// @notice No checkpoint of that number was accepted.
    error NotAccepted(uint64 number);
    /// @notice The checkpoint can still be disputed.
    error NotFinal(uint64 number, uint256 finalAt);

    /// @notice Accept `checkpoint` on the group's word.
    /// @param signature The threshold signature over `digest(checkpoint)`: G1, 128 bytes, EIP-2537.
    function submit(Checkpoint calldata checkpoint, bytes calldata signature) external;

    /// @notice The EIP-712 digest that the committee signs, of this chain and this contract.
    function digest(Checkpoint calldata checkpoint) external view returns (bytes32);

    /// @notice The EIP-712 domain separator of this chain and this contract.
    function domainSeparator() external view returns (bytes32);

    /// @notice Number of the last accepted checkpoint; 0 before the first.
    function acceptedNumber() external view returns (uint64);

    /// @notice Height of the last accepted checkpoint; 0 before the first.
    function acceptedHeight() external view returns (uint64);

    /// @notice What is kept of checkpoint `number`; all zero when it was not accepted.
    function accepted(uint64 number) external view returns (Accepted memory);

    /// @notice Whether checkpoint `number` was accepted and its dispute delay has passed.
    function isFinal(uint64 number) external view returns (bool);

    /// @notice What claims need of a final checkpoint; `NotAccepted` or `NotFinal` when it is none.
    function finalWithdrawals(uint64 number)
        external
        view
        returns (bytes32 withdrawalsRoot, uint256 withdrawnTotal);

    /// @notice The epoch whose key signs now.
    function epoch() external view returns (uint64);

    /// @notice An epoch's group key, 256 bytes of G2; `WrongEpoch` when it has none.
    function groupKey(uint64 epoch_) external view returns (bytes memory);

    /// @notice The inbox whose messages must be consumed.
    function inbox() external view returns (IInbox);

    /// @notice Block time between checkpoints, milliseconds.
    function intervalMs() external view returns (uint64);

    /// @notice Age in seconds from which a message of the inbox must be consumed.
    function inclusionDelay() external view returns (uint64);

    /// @notice Seconds from acceptance to finality.
    function disputeDelay() external view returns (uint64);
}
