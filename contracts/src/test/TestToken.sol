// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title Money for devnets and tests
/// @notice An ERC-20 with USDC's 6 decimals that anyone may mint. Worth nothing, by design.
contract TestToken is ERC20("Fairlane test dollar", "tUSD") {
    /// @notice Make `amount` for `to`.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
