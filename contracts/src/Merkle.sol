// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Proofs in dense Keccak trees of depth 32
/// @notice A node is `keccak256(0x01 || left || right)`, 65 bytes, and a leaf
/// `keccak256(0x00 || typehash || words)`. The first byte keeps leaves and nodes apart; the
/// typehash, leaves of different trees.
/// An index is bounded by the depth, and bit k of it is the side at level k: a leaf has one place.
///
/// To come, here: the account and value leaves that escape proves.
library Merkle {
    uint256 internal constant DEPTH = 32;

    bytes32 internal constant WITHDRAWAL_TYPEHASH =
        keccak256("Withdrawal(uint64 index,address recipient,uint256 amount)");

    /// @notice The leaf of a withdrawal.
    function withdrawalLeaf(uint64 index, address recipient, uint256 amount)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(
            bytes.concat(hex"00", abi.encode(WITHDRAWAL_TYPEHASH, index, recipient, amount))
        );
    }

    /// @notice Say whether `leaf` is at `index` under `root`. A root of zero proves nothing.
    /// @param proof The siblings, lowest first, `DEPTH` of them.
    function verify(bytes32 root, bytes32 leaf, uint256 index, bytes32[] calldata proof)
        internal
        pure
        returns (bool)
    {
        if (root == 0 || proof.length != DEPTH || index >> DEPTH != 0) return false;
        bytes32 hash = leaf;
        for (uint256 level = 0; level < DEPTH; ++level) {
            bytes32 sibling = proof[level];
            hash = (index >> level) & 1 == 0 ? _node(hash, sibling) : _node(sibling, hash);
        }
        return hash == root;
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            // Beyond the free pointer, which stays: the 65 bytes are needed for this hash only.
            let scratch := mload(0x40)
            mstore8(scratch, 1)
            mstore(add(scratch, 1), left)
            mstore(add(scratch, 33), right)
            hash := keccak256(scratch, 65)
        }
    }
}
