// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {BLS12381} from "../src/BLS12381.sol";
import {Base} from "./Base.sol";
import {Bls} from "./Bls.sol";

contract BLS12381Test is Base {
    function test_fuzz_only_the_key_holder_signs(uint256 secret, uint256 other, bytes32 message)
        external
        view
    {
        secret = bound(secret, 1, Bls.ORDER - 1);
        other = bound(other, 1, Bls.ORDER - 1);
        vm.assume(other != secret);
        bytes memory key = Bls.publicKey(secret);
        bytes memory signature = Bls.sign(secret, message);
        assertTrue(BLS12381.isKey(key), "a key");
        assertTrue(BLS12381.verify(key, message, signature), "own signature");
        assertTrue(!BLS12381.verify(key, ~message, signature), "another message");
        assertTrue(!BLS12381.verify(key, message, Bls.sign(other, message)), "another signer");
        assertTrue(!BLS12381.verify(Bls.publicKey(other), message, signature), "another key");
    }

    function test_fuzz_garbage_is_refused(bytes calldata key, bytes calldata signature)
        external
        view
    {
        assertTrue(!BLS12381.verify(key, 0, signature), "garbage");
        assertTrue(!BLS12381.verify(Bls.publicKey(7), 0, signature), "garbage signature");
    }

    /// @dev One flipped bit anywhere in key or signature.
    function test_fuzz_a_flipped_bit_is_refused(uint256 bit, bytes32 message) external view {
        bytes memory key = Bls.publicKey(7);
        bytes memory signature = Bls.sign(7, message);
        bytes memory hit = bit % 3 == 0 ? signature : key;
        uint256 place = (bit >> 8) % (hit.length * 8);
        hit[place / 8] ^= bytes1(uint8(1 << (place % 8)));
        assertTrue(!BLS12381.verify(key, message, signature), "flipped");
    }

    function test_identities_are_refused_though_they_pair() external view {
        bytes memory key = new bytes(256);
        bytes memory signature = new bytes(128);
        (bool ok, bytes memory point) = BLS12381.hashToG1("anything");
        bytes memory pairs = bytes.concat(signature, Bls.G2, point, key);
        bytes memory answer;
        (ok, answer) = address(0x0f).staticcall(pairs);
        assertTrue(ok && uint256(bytes32(answer)) == 1, "the trap is real");
        assertTrue(!BLS12381.verify(key, "anything", signature), "both identities");
        assertTrue(!BLS12381.verify(Bls.publicKey(7), "anything", signature), "identity signature");
        assertTrue(!BLS12381.verify(key, "anything", Bls.sign(7, "anything")), "identity key");
        assertTrue(!BLS12381.isKey(key), "identity is no key");
    }

    /// @dev n = 5, q = 4: any four sign for the group, no three do, whatever they interpolate.
    function test_fuzz_a_quorum_signs_and_fewer_do_not(uint256 seed, bytes32 message)
        external
        view
    {
        uint256[] memory coefficients = new uint256[](4);
        for (uint256 i = 0; i < 4; ++i) {
            coefficients[i] = bound(uint256(keccak256(abi.encode(seed, i))), 1, Bls.ORDER - 1);
        }
        bytes memory key = Bls.publicKey(coefficients[0]);
        uint256 absent = seed % 5 + 1;
        (uint256[] memory indices, bytes[] memory shares) =
            _shares(coefficients, absent, 4, message);
        assertTrue(BLS12381.verify(key, message, Bls.combine(indices, shares)), "four");
        (indices, shares) = _shares(coefficients, absent, 3, message);
        assertTrue(!BLS12381.verify(key, message, Bls.combine(indices, shares)), "three");
        assertTrue(!BLS12381.verify(key, message, shares[0]), "one");
    }

    function _shares(uint256[] memory coefficients, uint256 absent, uint256 count, bytes32 message)
        private
        view
        returns (uint256[] memory indices, bytes[] memory shares)
    {
        indices = new uint256[](count);
        shares = new bytes[](count);
        uint256 found;
        for (uint256 index = 1; found < count; ++index) {
            if (index == absent) continue;
            indices[found] = index;
            shares[found++] = Bls.sign(Bls.share(coefficients, index), message);
        }
    }
}
