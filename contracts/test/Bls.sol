// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {BLS12381} from "../src/BLS12381.sol";

/// @dev The committee's side, for tests: keys, shares and signatures by EIP-2537's multiplications.
library Bls {
    uint256 internal constant ORDER =
        0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001;

    bytes internal constant G2 = hex"00000000000000000000000000000000"
        hex"024aa2b2f08f0a91260805272dc51051"
        hex"c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
        hex"0000000000000000000000000000000013e02b6052719f607dacd3a088274f65"
        hex"596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
        hex"000000000000000000000000000000000ce5d527727d6e118cc9cdc6da2e351a"
        hex"adfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801"
        hex"000000000000000000000000000000000606c4a02ea734cc32acd2b02bc28b99"
        hex"cb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be";

    function publicKey(uint256 secret) internal view returns (bytes memory) {
        return _run(address(0x0e), bytes.concat(G2, bytes32(secret)), 256);
    }

    function sign(uint256 secret, bytes32 message) internal view returns (bytes memory) {
        (bool ok, bytes memory point) = BLS12381.hashToG1(message);
        require(ok, "no precompiles");
        return _run(address(0x0c), bytes.concat(point, bytes32(secret)), 128);
    }

    /// @dev The value at `index` of the polynomial with these coefficients, lowest first.
    function share(uint256[] memory coefficients, uint256 index)
        internal
        pure
        returns (uint256 value)
    {
        for (uint256 i = coefficients.length; i > 0; --i) {
            value = addmod(mulmod(value, index, ORDER), coefficients[i - 1], ORDER);
        }
    }

    /// @dev Interpolate signatures by the holders of `indices` at zero.
    function combine(uint256[] memory indices, bytes[] memory shares)
        internal
        view
        returns (bytes memory)
    {
        bytes memory terms;
        for (uint256 i = 0; i < indices.length; ++i) {
            uint256 above = 1;
            uint256 below = 1;
            for (uint256 j = 0; j < indices.length; ++j) {
                if (j == i) continue;
                above = mulmod(above, indices[j], ORDER);
                below = mulmod(below, addmod(indices[j], ORDER - indices[i], ORDER), ORDER);
            }
            uint256 weight = mulmod(above, _inverse(below), ORDER);
            terms = bytes.concat(terms, shares[i], bytes32(weight));
        }
        return _run(address(0x0c), terms, 128);
    }

    function _inverse(uint256 x) private view returns (uint256) {
        bytes memory input = abi.encode(uint256(32), uint256(32), uint256(32), x, ORDER - 2, ORDER);
        return uint256(bytes32(_run(address(0x05), input, 32)));
    }

    function _run(address precompile, bytes memory input, uint256 size)
        private
        view
        returns (bytes memory out)
    {
        bool ok;
        (ok, out) = precompile.staticcall(input);
        require(ok && out.length == size, "precompile failed");
    }
}
