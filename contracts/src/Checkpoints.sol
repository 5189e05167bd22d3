// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {BLS12381} from "./BLS12381.sol";
import {Checkpoint, CheckpointsConfig, ICheckpoints} from "./interfaces/ICheckpoints.sol";
import {IInbox} from "./interfaces/IInbox.sol";

/// @dev A group key kept as the code of its own address, behind a STOP: read in one piece, it costs
/// a sixth of eight storage slots.
contract GroupKey {
    constructor(bytes memory key) {
        bytes memory code = bytes.concat(hex"00", key);
        assembly ("memory-safe") {
            return(add(code, 32), mload(code))
        }
    }
}

/// @notice See `ICheckpoints`.
contract Checkpoints is ICheckpoints, EIP712 {
    using SafeCast for uint256;

    /// @dev How far ahead of the chain's clock a checkpoint's may be, seconds.
    uint256 public constant TIME_AHEAD_MAX = 60;
    /// @dev As many messages as one checkpoint must consume, however many are waiting.
    uint64 public constant CONSUMED_MIN = 64;

    bytes32 public constant CHECKPOINT_TYPEHASH = keccak256(
        "Checkpoint(uint64 epoch,uint64 number,uint64 height,uint64 blockTimeMs,bytes32 stateRoot,"
        "bytes32 snapshotRoot,bytes32 withdrawalsRoot,uint256 withdrawnTotal,uint64 inboxCount,"
        "bytes32 inboxHash,int256 netTotal,uint256 positiveTotal,uint64 dataSince,bytes32 dataHash,"
        "bytes32 nextEpochHash)"
    );

    /// @dev The last accepted checkpoint, as far as the next must be beyond it: one slot.
    struct Head {
        uint32 epoch;
        uint48 number;
        uint48 inboxCount;
        uint64 height;
        uint64 withdrawnTotal;
    }

    /// @inheritdoc ICheckpoints
    IInbox public immutable inbox;
    /// @inheritdoc ICheckpoints
    uint64 public immutable intervalMs;
    /// @inheritdoc ICheckpoints
    uint64 public immutable inclusionDelay;
    /// @inheritdoc ICheckpoints
    uint64 public immutable disputeDelay;

    Head private _head;
    mapping(uint64 number => Accepted) private _accepted;
    mapping(uint64 epoch => GroupKey) private _keys;

    constructor(IInbox inbox_, CheckpointsConfig memory config) EIP712("Fairlane", "1") {
        if (config.intervalMs == 0) revert ZeroInterval();
        if (!BLS12381.isKey(config.groupKey)) revert BadGroupKey();
        inbox = inbox_;
        intervalMs = config.intervalMs;
        inclusionDelay = config.inclusionDelay;
        disputeDelay = config.disputeDelay;
        _head.epoch = 1;
        _keys[1] = new GroupKey(config.groupKey);
    }

    /// @inheritdoc ICheckpoints
    function submit(Checkpoint calldata checkpoint, bytes calldata signature) external {
        Head memory head = _head;
        _checkPlace(checkpoint, head);
        _checkContent(checkpoint);
        _checkInbox(checkpoint, head);
        bytes32 digest_ = digest(checkpoint);
        if (!BLS12381.verify(groupKey(head.epoch), digest_, signature)) revert BadSignature();

        _head = Head({
            epoch: head.epoch,
            number: uint256(checkpoint.number).toUint48(),
            inboxCount: uint256(checkpoint.inboxCount).toUint48(),
            height: checkpoint.height,
            withdrawnTotal: uint64(checkpoint.withdrawnTotal)
        });
        _accepted[checkpoint.number] = Accepted({
            withdrawalsRoot: checkpoint.withdrawalsRoot,
            stateRoot: checkpoint.stateRoot,
            acceptedAt: uint64(block.timestamp),
            inboxCount: checkpoint.inboxCount,
            withdrawnTotal: uint64(checkpoint.withdrawnTotal),
            positiveTotal: uint64(checkpoint.positiveTotal)
        });
        emit CheckpointAccepted(
            checkpoint.number,
            checkpoint.height,
            digest_,
            checkpoint.stateRoot,
            checkpoint.withdrawalsRoot,
            checkpoint.inboxCount
        );
    }

    /// @inheritdoc ICheckpoints
    function digest(Checkpoint calldata checkpoint) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(CHECKPOINT_TYPEHASH, checkpoint)));
    }

    /// @inheritdoc ICheckpoints
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @inheritdoc ICheckpoints
    function acceptedNumber() external view returns (uint64) {
        return _head.number;
    }

    /// @inheritdoc ICheckpoints
    function acceptedHeight() external view returns (uint64) {
        return _head.height;
    }

    /// @inheritdoc ICheckpoints
    function accepted(uint64 number) external view returns (Accepted memory) {
        return _accepted[number];
    }

    /// @inheritdoc ICheckpoints
    function isFinal(uint64 number) external view returns (bool) {
        uint256 acceptedAt = _accepted[number].acceptedAt;
        return acceptedAt != 0 && block.timestamp >= acceptedAt + disputeDelay;
    }

    /// @inheritdoc ICheckpoints
    function finalWithdrawals(uint64 number)
        external
        view
        returns (bytes32 withdrawalsRoot, uint256 withdrawnTotal)
    {
        Accepted storage record = _accepted[number];
        uint256 acceptedAt = record.acceptedAt;
        if (acceptedAt == 0) revert NotAccepted(number);
        uint256 finalAt = acceptedAt + disputeDelay;
        if (block.timestamp < finalAt) revert NotFinal(number, finalAt);
        return (record.withdrawalsRoot, record.withdrawnTotal);
    }

    /// @inheritdoc ICheckpoints
    function epoch() external view returns (uint64) {
        return _head.epoch;
    }

    /// @inheritdoc ICheckpoints
    function groupKey(uint64 epoch_) public view returns (bytes memory key) {
        address holder = address(_keys[epoch_]);
        if (holder == address(0)) revert WrongEpoch(epoch_, _head.epoch);
        key = new bytes(BLS12381.G2_BYTES);
        assembly ("memory-safe") {
            extcodecopy(holder, add(key, 32), 1, mload(key))
        }
    }

    /// @dev The checkpoint comes after the last one, under the key that signs now, and not from the
    /// future.
    function _checkPlace(Checkpoint calldata checkpoint, Head memory head) private view {
        if (checkpoint.epoch != head.epoch) revert WrongEpoch(checkpoint.epoch, head.epoch);
        // Its time is above the last one's too, by the rule on the number just below.
        if (checkpoint.number <= head.number) {
            revert NumberNotGrowing(checkpoint.number, head.number);
        }
        uint64 expected = checkpoint.blockTimeMs / intervalMs;
        if (checkpoint.number != expected) revert WrongNumber(checkpoint.number, expected);
        if (checkpoint.height <= head.height) {
            revert HeightNotGrowing(checkpoint.height, head.height);
        }
        uint256 limitMs = (block.timestamp + TIME_AHEAD_MAX) * 1000;
        if (checkpoint.blockTimeMs > limitMs) revert TimeAhead(checkpoint.blockTimeMs, limitMs);
    }

    /// @dev No zero root, sums within what is kept of them, and no meaning in fields that have none
    /// yet.
    function _checkContent(Checkpoint calldata checkpoint) private pure {
        if (
            checkpoint.stateRoot == 0 || checkpoint.snapshotRoot == 0
                || checkpoint.withdrawalsRoot == 0
        ) revert ZeroRoot();
        if (checkpoint.withdrawnTotal > type(uint64).max) {
            revert TotalTooLarge(checkpoint.withdrawnTotal);
        }
        if (checkpoint.positiveTotal > type(uint64).max) {
            revert TotalTooLarge(checkpoint.positiveTotal);
        }
        if (
            checkpoint.dataSince != 0 || checkpoint.dataHash != keccak256("")
                || checkpoint.nextEpochHash != 0
        ) revert ReservedField();
    }

    /// @dev The checkpoint agrees with the inbox, leaves out no message that waited too long, and
    /// its money is what came in less what went out.
    function _checkInbox(Checkpoint calldata checkpoint, Head memory head) private view {
        uint64 since = head.inboxCount;
        if (checkpoint.inboxCount < since) {
            revert InboxCountWentBack(checkpoint.inboxCount, since);
        }
        IInbox.Entry memory entry = inbox.entry(checkpoint.inboxCount);
        if (checkpoint.inboxHash != entry.chained) {
            revert InboxHashMismatch(checkpoint.inboxHash, entry.chained);
        }
        bool late = entry.nextTime != 0 && block.timestamp - entry.nextTime > inclusionDelay;
        if (late && checkpoint.inboxCount - since < CONSUMED_MIN) {
            revert InboxIgnored(checkpoint.inboxCount);
        }
        if (checkpoint.withdrawnTotal < head.withdrawnTotal) {
            revert WithdrawnTotalWentBack(checkpoint.withdrawnTotal, head.withdrawnTotal);
        }
        int256 expected = int256(uint256(entry.depositedTotal)) - int256(checkpoint.withdrawnTotal);
        if (checkpoint.netTotal != expected) {
            revert NetTotalMismatch(checkpoint.netTotal, expected);
        }
    }
}
