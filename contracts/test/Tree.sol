// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev A withdrawals tree with leaves 0, 1, 2, ... computed from its definition, the whole each
/// time: the oracle for `Merkle`.
contract Tree {
    bytes32[] public leaves;

    function append(address recipient, uint256 amount) external returns (uint64 index) {
        index = uint64(leaves.length);
        leaves.push(
            keccak256(
                abi.encodePacked(
                    uint8(0),
                    keccak256("Withdrawal(uint64 index,address recipient,uint256 amount)"),
                    uint256(index),
                    uint256(uint160(recipient)),
                    amount
                )
            )
        );
    }

    function root() external view returns (bytes32 hash) {
        (hash,) = _climb(0, leaves.length);
    }

    function proof(uint64 index) external view returns (bytes32[] memory siblings) {
        (, siblings) = _climb(index, leaves.length);
    }

    /// @dev The proof in the tree as it was with `count` leaves.
    function proofAt(uint64 index, uint256 count)
        external
        view
        returns (bytes32[] memory siblings)
    {
        (, siblings) = _climb(index, count);
    }

    function size() external view returns (uint256) {
        return leaves.length;
    }

    function node(bytes32 left, bytes32 right) public pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(1), left, right));
    }

    function _climb(uint256 index, uint256 count)
        private
        view
        returns (bytes32, bytes32[] memory siblings)
    {
        siblings = new bytes32[](32);
        bytes32 empty = keccak256("fairlane.empty.leaf");
        bytes32[] memory level = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            level[i] = leaves[i];
        }
        for (uint256 height = 0; height < 32; ++height) {
            uint256 beside = index ^ 1;
            siblings[height] = beside < level.length ? level[beside] : empty;
            bytes32[] memory above = new bytes32[]((level.length + 1) / 2);
            for (uint256 i = 0; i < above.length; ++i) {
                above[i] = node(level[2 * i], 2 * i + 1 < level.length ? level[2 * i + 1] : empty);
            }
            (level, empty, index) = (above, node(empty, empty), index / 2);
        }
        return (level.length == 0 ? empty : level[0], siblings);
    }
}
