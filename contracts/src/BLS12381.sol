// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title BLS signatures on BLS12-381: signature in G1, key in G2
/// @notice Verifies with the precompiles of EIP-2537, hashing to G1 as RFC 9380's suite
/// BLS12381G1_XMD:SHA-256_SSWU_RO_ does. The precompiles refuse points off the curve, outside the
/// subgroup or not canonically encoded; the identity, which they take, is refused here: an identity
/// key would verify an identity signature over anything.
library BLS12381 {
    /// @dev Bytes of a point, EIP-2537 encoding: coordinates padded to 64 bytes.
    uint256 internal constant G1_BYTES = 128;
    uint256 internal constant G2_BYTES = 256;

    uint256 private constant SHA256 = 0x02;
    uint256 private constant MODEXP = 0x05;
    uint256 private constant G1_ADD = 0x0b;
    uint256 private constant PAIRING_CHECK = 0x0f;
    uint256 private constant MAP_FP_TO_G1 = 0x10;

    /// @dev DST || I2OSP(43, 1), RFC 9380 section 5.3.1: the suite of "proof of possession", 44
    /// bytes, in the high bytes of two words.
    bytes32 private constant DST_HIGH = "BLS_SIG_BLS12381G1_XMD:SHA-256_S";
    bytes32 private constant DST_LOW = "SWU_RO_POP_+";

    /// @dev The field's modulus p, padded to 64 bytes.
    uint256 private constant P_HIGH = 0x1a0111ea397fe69a4b1ba7b6434bacd7;
    uint256 private constant P_LOW =
        0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;

    /// @dev The generator of G2, negated.
    bytes private constant NEGATED_G2 = hex"00000000000000000000000000000000"
        hex"024aa2b2f08f0a91260805272dc51051"
        hex"c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
        hex"0000000000000000000000000000000013e02b6052719f607dacd3a088274f65"
        hex"596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
        hex"000000000000000000000000000000000d1b3cc2c7027888be51d9ef691d77bc"
        hex"b679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa"
        hex"0000000000000000000000000000000013fa4d4a0ad8b1ce186ed5061789213d"
        hex"993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed";

    /// @notice Say whether `signature` over the 32 bytes `message` is by `key`. Never reverts for
    /// its arguments' sake.
    function verify(bytes memory key, bytes32 message, bytes memory signature)
        internal
        view
        returns (bool)
    {
        if (key.length != G2_BYTES || signature.length != G1_BYTES) return false;
        if (_isIdentity(key) || _isIdentity(signature)) return false;
        (bool hashed, bytes memory point) = hashToG1(message);
        if (!hashed || _isIdentity(point)) return false;
        // e(signature, -G2) * e(H(message), key) == 1
        return _pairsToOne(bytes.concat(signature, NEGATED_G2, point, key));
    }

    /// @notice Say whether `key` may sign: a point of G2's subgroup that is not the identity.
    function isKey(bytes memory key) internal view returns (bool) {
        if (key.length != G2_BYTES || _isIdentity(key)) return false;
        // A pairing with G1's identity is one for every point that the precompile takes.
        return _pairsToOne(bytes.concat(new bytes(G1_BYTES), key));
    }

    /// @notice Hash 32 bytes to a point of G1. Source: RFC 9380, section 3 (hash_to_curve).
    /// @return ok False when a precompile is missing.
    /// @return point 128 bytes, EIP-2537 encoding.
    function hashToG1(bytes32 message) internal view returns (bool ok, bytes memory point) {
        point = new bytes(G1_BYTES);
        // One buffer, used again and again beyond the free pointer:
        //   x +   0  input of SHA-256 (143 bytes): 64 zeros, message, I2OSP(128, 2), 0, DST'
        //   x +  66  later (77 bytes): b_0 xor b_(i-1), i, DST'
        //   x + 160  input of modexp (225 bytes): lengths 64, 1, 64; b_i, b_(i+1); exponent 1; p
        //   x + 416  a field element (64 bytes)
        //   x + 480  the two points to add (256 bytes)
        assembly ("memory-safe") {
            // Call a precompile. An answer of another length is none: where the precompile does not
            // exist, the call itself succeeds.
            function run(precompile, input, size, out, outSize) -> done {
                done := staticcall(gas(), precompile, input, size, out, outSize)
                done := and(done, eq(returndatasize(), outSize))
            }
            // Put b_i and b_(i+1) into modexp's base, reduce them, map the element to a point.
            function element(x, b0, previous, i, out) -> done, last {
                mstore(add(x, 66), xor(b0, previous))
                mstore8(add(x, 98), i)
                done := run(SHA256, add(x, 66), 77, add(x, 256), 32)
                mstore(add(x, 66), xor(b0, mload(add(x, 256))))
                mstore8(add(x, 98), add(i, 1))
                done := and(done, run(SHA256, add(x, 66), 77, add(x, 288), 32))
                last := mload(add(x, 288))
                done := and(done, run(MODEXP, add(x, 160), 225, add(x, 416), 64))
                done := and(done, run(MAP_FP_TO_G1, add(x, 416), 64, out, 128))
            }
            let x := mload(0x40)
            mstore(x, 0)
            mstore(add(x, 32), 0)
            mstore(add(x, 64), message)
            mstore(add(x, 96), shl(232, 0x008000))
            mstore(add(x, 99), DST_HIGH)
            mstore(add(x, 131), DST_LOW)
            mstore(add(x, 160), 64)
            mstore(add(x, 192), 1)
            mstore(add(x, 224), 64)
            mstore8(add(x, 320), 1)
            mstore(add(x, 321), P_HIGH)
            mstore(add(x, 353), P_LOW)
            ok := run(SHA256, x, 143, add(x, 416), 32)
            let b0 := mload(add(x, 416))
            let done, last := element(x, b0, 0, 1, add(x, 480))
            ok := and(ok, done)
            done, last := element(x, b0, last, 3, add(x, 608))
            ok := and(ok, done)
            ok := and(ok, run(G1_ADD, add(x, 480), 256, add(point, 32), 128))
        }
    }

    /// @dev Whether the product of the pairings of these pairs is one; false for what is no pair.
    function _pairsToOne(bytes memory pairs) private view returns (bool isOne) {
        assembly ("memory-safe") {
            isOne := staticcall(gas(), PAIRING_CHECK, add(pairs, 32), mload(pairs), 0, 32)
            isOne := and(isOne, and(eq(returndatasize(), 32), eq(mload(0), 1)))
        }
    }

    /// @dev Whether a point's 128 or 256 bytes are all zero, which is the identity.
    function _isIdentity(bytes memory point) private pure returns (bool zero) {
        assembly ("memory-safe") {
            let joined := 0
            let end := add(point, mload(point))
            for { let i := add(point, 32) } lt(i, end) { i := add(i, 128) } {
                joined := or(joined, or(mload(i), mload(add(i, 32))))
                joined := or(joined, or(mload(add(i, 64)), mload(add(i, 96))))
            }
            zero := iszero(joined)
        }
    }
}
