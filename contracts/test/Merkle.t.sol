// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Merkle} from "../src/Merkle.sol";
import {Base} from "./Base.sol";
import {Tree} from "./Tree.sol";

contract MerkleTest is Base {
    Tree private _tree = new Tree();

    function verify(bytes32 root, bytes32 leaf, uint256 index, bytes32[] calldata proof)
        external
        pure
        returns (bool)
    {
        return Merkle.verify(root, leaf, index, proof);
    }

    function test_fuzz_exactly_the_leaves_are_proved(
        uint8 size,
        uint8 place,
        address who,
        uint256 sum
    ) external {
        uint256 count = bound(size, 1, 40);
        for (uint256 i = 0; i < count; ++i) {
            _tree.append(who, sum);
        }
        uint64 index = uint64(bound(place, 0, count - 1));
        bytes32 root = _tree.root();
        bytes32 leaf = Merkle.withdrawalLeaf(index, who, sum);
        bytes32[] memory proof = _tree.proof(index);
        assertTrue(leaf == _tree.leaves(index), "leaf");
        assertTrue(this.verify(root, leaf, index, proof), "proved");
        assertTrue(!this.verify(root, leaf, index ^ 1, proof), "another place");
        assertTrue(!this.verify(root, leaf, uint256(index) + (1 << 32), proof), "beyond the depth");
        assertTrue(
            !this.verify(root, Merkle.withdrawalLeaf(index ^ 1, who, sum), index, proof),
            "another leaf"
        );
        proof[place % 32] ^= bytes32(uint256(1));
        assertTrue(!this.verify(root, leaf, index, proof), "another sibling");
    }

    function test_zero_root_and_other_depths_prove_nothing() external {
        _tree.append(address(1), 5);
        bytes32 leaf = _tree.leaves(0);
        bytes32[] memory proof = _tree.proof(0);
        assertTrue(!this.verify(0, leaf, 0, proof), "zero root");
        bytes32[] memory none = new bytes32[](0);
        assertTrue(!this.verify(leaf, leaf, 0, none), "a leaf is no root");
        bytes32[] memory less = new bytes32[](31);
        bytes32[] memory more = new bytes32[](33);
        for (uint256 i = 0; i < 32; ++i) {
            more[i] = proof[i];
            if (i > 0) less[i - 1] = proof[i];
        }
        bytes32 inner = _tree.node(leaf, proof[0]);
        assertTrue(!this.verify(_tree.root(), inner, 0, less), "a node is no leaf");
        assertTrue(!this.verify(_tree.node(_tree.root(), 0), leaf, 0, more), "no deeper tree");
    }
}
