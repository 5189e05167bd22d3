// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title BLS signatures on BLS12-381: signature in G1, key in G2
/// @notice Verifies with the precompiles of EIP-2537, hashing to G1 as RFC 9380's suite
/// BLS12381G1_XMD:SHA-256_SSWU_RO_ does. The precompiles refuse points off the curve, outside the
/// subgroup or not canonically encoded; the identity, which they take, is refused here: an identity key
/// would verify an identity signature over anything.
library BLS12381 {
    /// @dev Bytes of a point, EIP-2537 encoding: coordinates padded to 64 bytes.
    uint256 internal constant G1_BYTES = 128;
    uint256 internal constant G2_BYTES = 256;

    address private constant MODEXP = address(0x05);
    address private constant G1_ADD = address(0x0b);
    address private constant PAIRING_CHECK = address(0x0f);
    address private constant MAP_FP_TO_G1 = address(0x10);

    /// @dev DST || I2OSP(len(DST), 1), RFC 9380 section 5.3.1; the ciphersuite of proof of possession.
    bytes private constant DST_PRIME =
        abi.encodePacked("BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_", uint8(43));

    /// @dev What modexp wants around a 64-byte base: lengths of base, exponent and modulus before it,
    /// exponent 1 and the field's modulus p, padded to 64 bytes, after it. So it answers a padded element.
    bytes private constant MODEXP_HEAD = abi.encodePacked(uint256(64), uint256(1), uint256(64));
    bytes private constant MODEXP_TAIL = abi.encodePacked(
        uint8(1),
        bytes16(0),
        hex"1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab"
    );

    /// @dev The generator of G2, negated.
    bytes private constant NEGATED_G2 = hex"00000000000000000000000000000000024aa2b2f08f0a91260805272dc51051"
        hex"c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
        hex"0000000000000000000000000000000013e02b6052719f607dacd3a088274f65"
        hex"596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
        hex"000000000000000000000000000000000d1b3cc2c7027888be51d9ef691d77bc"
        hex"b679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa"
        hex"0000000000000000000000000000000013fa4d4a0ad8b1ce186ed5061789213d"
        hex"993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed";

    /// @notice Say whether `signature` over the 32 bytes `message` is by `key`. Never reverts for its
    /// arguments' sake.
    function verify(bytes memory key, bytes32 message, bytes memory signature)
        internal
        view
        returns (bool)
    {
        if (key.length != G2_BYTES || signature.length != G1_BYTES) return false;
        if (_isZero(key) || _isZero(signature)) return false;
        (bool hashed, bytes memory point) = hashToG1(message);
        if (!hashed || _isZero(point)) return false;
        // e(signature, -G2) * e(H(message), key) == 1
        return _pairsToOne(bytes.concat(signature, NEGATED_G2, point, key));
    }

    /// @notice Say whether `key` may sign: a point of G2's subgroup that is not the identity.
    function isKey(bytes memory key) internal view returns (bool) {
        if (key.length != G2_BYTES || _isZero(key)) return false;
        // A pairing with G1's identity is one for every point that the precompile takes.
        return _pairsToOne(bytes.concat(new bytes(G1_BYTES), key));
    }

    /// @notice Hash 32 bytes to a point of G1. Source: RFC 9380, section 3 (hash_to_curve).
    /// @return ok False when a precompile is missing.
    function hashToG1(bytes32 message) internal view returns (bool ok, bytes memory point) {
        (bytes32 a, bytes32 b, bytes32 c, bytes32 d) = _expand(message);
        bytes memory left;
        bytes memory right;
        (ok, left) = _mapToG1(a, b);
        if (!ok) return (false, point);
        (ok, right) = _mapToG1(c, d);
        if (!ok) return (false, point);
        return _call(G1_ADD, bytes.concat(left, right), G1_BYTES);
    }

    /// @dev expand_message_xmd with SHA-256 to 128 bytes. Source: RFC 9380, section 5.3.1.
    function _expand(bytes32 message)
        private
        pure
        returns (bytes32 b1, bytes32 b2, bytes32 b3, bytes32 b4)
    {
        bytes memory dst = DST_PRIME;
        bytes32 b0 =
            sha256(abi.encodePacked(bytes32(0), bytes32(0), message, uint16(128), uint8(0), dst));
        b1 = sha256(abi.encodePacked(b0, uint8(1), dst));
        b2 = sha256(abi.encodePacked(b0 ^ b1, uint8(2), dst));
        b3 = sha256(abi.encodePacked(b0 ^ b2, uint8(3), dst));
        b4 = sha256(abi.encodePacked(b0 ^ b3, uint8(4), dst));
    }

    /// @dev Reduce 64 bytes modulo p and map the field element to G1.
    function _mapToG1(bytes32 high, bytes32 low) private view returns (bool ok, bytes memory out) {
        (ok, out) = _call(MODEXP, abi.encodePacked(MODEXP_HEAD, high, low, MODEXP_TAIL), 64);
        if (!ok) return (false, out);
        return _call(MAP_FP_TO_G1, out, G1_BYTES);
    }

    function _pairsToOne(bytes memory pairs) private view returns (bool) {
        (bool ok, bytes memory out) = _call(PAIRING_CHECK, pairs, 32);
        return ok && bytes32(out) == bytes32(uint256(1));
    }

    /// @dev Call a precompile. An answer of another length is none: where the precompile does not exist,
    /// the call itself succeeds.
    function _call(address precompile, bytes memory input, uint256 size)
        private
        view
        returns (bool ok, bytes memory out)
    {
        (ok, out) = precompile.staticcall(input);
        ok = ok && out.length == size;
    }

    function _isZero(bytes memory data) private pure returns (bool) {
        uint256 joined;
        for (uint256 i = 32; i <= data.length; i += 32) {
            assembly ("memory-safe") {
                joined := or(joined, mload(add(data, i)))
            }
        }
        return joined == 0;
    }
}
