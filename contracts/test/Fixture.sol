// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Vault} from "../src/Vault.sol";
import {Checkpoint, CheckpointsConfig, ICheckpoints} from "../src/interfaces/ICheckpoints.sol";
import {IInbox} from "../src/interfaces/IInbox.sol";
import {Base} from "./Base.sol";
import {Bls} from "./Bls.sol";
import {HostileToken} from "./HostileTokens.sol";
import {Tree} from "./Tree.sol";

/// @dev A deployment, its committee's secret and the withdrawals it granted.
contract Fixture is Base {
    uint256 internal constant SECRET = 0xfa17;
    uint64 internal constant INTERVAL_MS = 2000;
    uint64 internal constant INCLUSION_DELAY = 1 hours;
    uint64 internal constant DISPUTE_DELAY = 10 minutes;
    uint64 internal constant MINIMUM = 1e6;
    bytes32 internal constant ROOT = bytes32(uint256(0xabc));

    HostileToken internal token;
    Vault internal vault;
    IInbox internal inbox;
    ICheckpoints internal checkpoints;
    Tree internal tree;
    uint256 internal withdrawn;
    /// @dev The time now. The optimiser takes `block.timestamp` for constant within a call, so
    /// tests that let time pass must not read it.
    uint256 internal clock = 1_800_000_000;

    constructor() {
        vm.warp(clock);
        token = new HostileToken();
        vault = deploy(Bls.publicKey(SECRET));
        inbox = vault.inbox();
        checkpoints = vault.checkpoints();
        tree = new Tree();
        token.mint(address(this), 1e30);
        token.approve(address(vault), type(uint256).max);
    }

    function pass(uint256 duration) internal {
        clock += duration;
        vm.warp(clock);
    }

    function deploy(bytes memory key) internal returns (Vault) {
        CheckpointsConfig memory config =
            CheckpointsConfig(INTERVAL_MS, INCLUSION_DELAY, DISPUTE_DELAY, key);
        return new Vault(IERC20(address(token)), MINIMUM, config);
    }

    /// @dev The checkpoint that an honest committee would sign now.
    function next() internal view returns (Checkpoint memory c) {
        c.epoch = 1;
        c.blockTimeMs = uint64(clock) * 1000;
        c.number = c.blockTimeMs / INTERVAL_MS;
        c.height = checkpoints.acceptedHeight() + 1;
        c.stateRoot = ROOT;
        c.snapshotRoot = ROOT;
        c.withdrawalsRoot = tree.root();
        c.withdrawnTotal = withdrawn;
        c.inboxCount = uint64(inbox.count());
        IInbox.Entry memory entry = inbox.entry(c.inboxCount);
        c.inboxHash = entry.chained;
        c.netTotal = int256(uint256(entry.depositedTotal)) - int256(withdrawn);
        c.positiveTotal = c.netTotal > 0 ? uint256(c.netTotal) : 0;
        c.dataHash = keccak256("");
    }

    function sign(Checkpoint memory c) internal view returns (bytes memory) {
        return Bls.sign(SECRET, checkpoints.digest(c));
    }

    function submit(Checkpoint memory c) internal {
        checkpoints.submit(c, sign(c));
    }

    /// @dev Let time pass to the next number, submit, and let it pass to finality.
    function settle() internal returns (uint64 number) {
        pass(INTERVAL_MS / 1000);
        Checkpoint memory c = next();
        submit(c);
        pass(DISPUTE_DELAY);
        return c.number;
    }

    function grant(address recipient, uint256 amount) internal returns (uint64 index) {
        withdrawn += amount;
        return tree.append(recipient, amount);
    }
}
