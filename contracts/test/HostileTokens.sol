// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @dev A token whose owner can do to a transfer what real and hostile tokens do.
contract HostileToken is ERC20("Hostile", "BAD") {
    enum Mood {
        Honest,
        TakesFee, // The receiver gets 1 % less.
        TakesFeeOnTop, // The sender loses 1 % more.
        ReturnsFalse,
        ReturnsNothing, // As USDT: moves the money and returns no data.
        MovesNothing, // Says true.
        ReturnsGarbage,
        Doubles // The receiver gets twice as much.
    }

    Mood public mood;
    mapping(address who => bool) public blocked;
    address private _hooked;
    bytes private _hook;
    bool public hookSucceeded;
    uint256 public hookRuns;

    error Blocked(address who);

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setMood(Mood mood_) external {
        mood = mood_;
    }

    function setBlocked(address who, bool is_) external {
        blocked[who] = is_;
    }

    /// @dev Call `target` in the midst of every transfer to come.
    function setHook(address target, bytes calldata data) external {
        (_hooked, _hook) = (target, data);
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        return _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        _spendAllowance(from, msg.sender, amount);
        return _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private returns (bool) {
        if (blocked[to]) revert Blocked(to);
        if (_hooked != address(0)) {
            ++hookRuns;
            (bool ok,) = _hooked.call(_hook);
            hookSucceeded = hookSucceeded || ok;
        }
        if (mood == Mood.ReturnsFalse) return false;
        if (mood == Mood.MovesNothing) return true;
        _transfer(from, to, amount);
        if (mood == Mood.TakesFee) _burn(to, amount / 100);
        if (mood == Mood.TakesFeeOnTop) _burn(from, amount / 100);
        if (mood == Mood.Doubles) _mint(to, amount);
        if (mood == Mood.ReturnsNothing) {
            assembly {
                return(0, 0)
            }
        }
        if (mood == Mood.ReturnsGarbage) {
            assembly {
                mstore(0, 2)
                return(0, 32)
            }
        }
        return true;
    }
}
