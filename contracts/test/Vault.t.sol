// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Inbox} from "../src/Inbox.sol";
import {Vault} from "../src/Vault.sol";
import {Checkpoint, CheckpointsConfig, ICheckpoints} from "../src/interfaces/ICheckpoints.sol";
import {IInbox} from "../src/interfaces/IInbox.sol";
import {IVault} from "../src/interfaces/IVault.sol";
import {Bls} from "./Bls.sol";
import {Fixture} from "./Fixture.sol";
import {HostileToken} from "./HostileTokens.sol";

contract VaultTest is Fixture {
    address internal constant ALICE = address(0xa11ce);
    address internal constant BOB = address(0xb0b);

    function test_fuzz_a_deposit_enters_the_inbox(uint64 amount, address wallet, uint8 sub)
        external
    {
        amount = uint64(bound(amount, MINIMUM, uint64(type(int64).max)));
        sub = uint8(bound(sub, 0, 31));
        vm.assume(wallet != address(0));
        assertEq(vault.deposit(amount, wallet, sub), 1, "first message");
        bytes memory message = abi.encode(uint256(1), wallet, uint256(sub), uint256(amount));
        bytes32 chained =
            keccak256(abi.encodePacked(keccak256("fairlane.inbox.v1"), keccak256(message)));
        IInbox.Entry memory entry = inbox.entry(1);
        assertTrue(entry.chained == chained, "chain");
        assertEq(entry.depositedTotal, amount, "total");
        assertEq(entry.nextTime, 0, "nothing after it");
        assertEq(inbox.entry(0).nextTime, clock, "its time");
    }

    function test_bad_deposits_are_refused() external {
        vm.expectRevert(IVault.ZeroWallet.selector);
        vault.deposit(MINIMUM, address(0), 0);
        vm.expectRevert(abi.encodeWithSelector(IVault.BadSubaccount.selector, 32));
        vault.deposit(MINIMUM, ALICE, 32);
        vm.expectRevert(
            abi.encodeWithSelector(IVault.DepositTooSmall.selector, MINIMUM - 1, MINIMUM)
        );
        vault.deposit(MINIMUM - 1, ALICE, 0);
        uint256 limit = uint64(type(int64).max);
        vm.expectRevert(abi.encodeWithSelector(IInbox.DepositedTooMuch.selector, limit + 1, limit));
        vault.deposit(limit + 1, ALICE, 0);
        vm.expectRevert(abi.encodeWithSelector(IInbox.OnlyVault.selector, address(this)));
        Inbox(address(inbox)).enqueueDeposit(ALICE, 0, MINIMUM);
        vm.expectRevert(abi.encodeWithSelector(IInbox.UnknownCount.selector, 1, 0));
        inbox.entry(1);
    }

    function test_a_vault_needs_a_token_and_a_minimum() external {
        CheckpointsConfig memory config = CheckpointsConfig(1, 1, 1, Bls.publicKey(1));
        vm.expectRevert(abi.encodeWithSelector(IVault.NotAToken.selector, ALICE));
        new Vault(IERC20(ALICE), 1, config);
        vm.expectRevert(IVault.ZeroMinimum.selector);
        new Vault(IERC20(address(token)), 0, config);
    }

    function test_fuzz_a_withdrawal_is_paid_once_to_its_recipient(uint8 size, uint8 which)
        external
    {
        vault.deposit(1e9, ALICE, 0);
        uint256 count = bound(size, 1, 12);
        uint64 index = uint64(bound(which, 0, count - 1));
        for (uint256 i = 0; i < count; ++i) {
            grant(i == index ? BOB : ALICE, 1e6 + i);
        }
        uint64 number = settle();
        bytes32[] memory proof = tree.proof(index);
        uint256 amount = 1e6 + index;
        vm.expectRevert(IVault.BadProof.selector);
        vault.claim(number, index, ALICE, amount, proof);
        vm.expectRevert(IVault.BadProof.selector);
        vault.claim(number, index, BOB, amount + 1, proof);
        vm.expectRevert(IVault.BadProof.selector);
        vault.claim(number, index + 1, BOB, amount, proof);
        vm.prank(ALICE);
        vault.claim(number, index, BOB, amount, proof);
        assertEq(token.balanceOf(BOB), amount, "paid");
        assertTrue(vault.claimed(index), "marked");
        assertEq(vault.claimedTotal(), amount, "counted");
        vm.expectRevert(abi.encodeWithSelector(IVault.AlreadyClaimed.selector, index));
        vault.claim(number, index, BOB, amount, proof);
        number = settle(); // Nor against a later checkpoint.
        vm.expectRevert(abi.encodeWithSelector(IVault.AlreadyClaimed.selector, index));
        vault.claim(number, index, BOB, amount, proof);
    }

    function test_claims_wait_for_finality() external {
        vault.deposit(1e9, ALICE, 0);
        uint64 index = grant(BOB, 1e6);
        bytes32[] memory proof = tree.proof(index);
        Checkpoint memory c = next();
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.NotAccepted.selector, c.number));
        vault.claim(c.number, index, BOB, 1e6, proof);
        submit(c);
        uint256 finalAt = clock + DISPUTE_DELAY;
        pass(DISPUTE_DELAY - 1);
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.NotFinal.selector, c.number, finalAt));
        vault.claim(c.number, index, BOB, 1e6, proof);
        pass(1);
        vault.claim(c.number, index, BOB, 1e6, proof);
    }

    /// @dev A tree whose leaves sum to more than `withdrawnTotal` pays no more than that.
    function test_claims_stay_below_what_was_declared_withdrawn() external {
        vault.deposit(1e9, ALICE, 0);
        tree.append(BOB, 60e6);
        tree.append(BOB, 60e6);
        withdrawn = 100e6;
        uint64 number = settle();
        vault.claim(number, 0, BOB, 60e6, tree.proof(0));
        bytes32[] memory proof = tree.proof(1);
        vm.expectRevert(abi.encodeWithSelector(IVault.ClaimsExceedWithdrawn.selector, 60e6, 40e6));
        vault.claim(number, 1, BOB, 60e6, proof);
    }

    /// @dev An older final checkpoint still pays its leaves after a newer one was used.
    function test_older_checkpoints_stay_good() external {
        vault.deposit(1e9, ALICE, 0);
        grant(BOB, 10e6);
        uint64 older = settle();
        bytes32[] memory proof = tree.proof(0);
        grant(ALICE, 500e6);
        uint64 newer = settle();
        vault.claim(newer, 1, ALICE, 500e6, tree.proof(1));
        vault.claim(older, 0, BOB, 10e6, proof);
        assertEq(token.balanceOf(BOB), 10e6, "paid");
    }

    function test_what_arrives_is_credited() external {
        token.setMood(HostileToken.Mood.TakesFee);
        vault.deposit(100e6, ALICE, 0);
        assertEq(inbox.entry(1).depositedTotal, 99e6, "less the fee");
        vm.expectRevert(
            abi.encodeWithSelector(IVault.DepositTooSmall.selector, MINIMUM * 99 / 100, MINIMUM)
        );
        vault.deposit(MINIMUM, ALICE, 0);
        token.setMood(HostileToken.Mood.Doubles);
        vault.deposit(100e6, ALICE, 0);
        assertEq(inbox.entry(2).depositedTotal, 299e6, "and the gift");
        token.setMood(HostileToken.Mood.ReturnsNothing);
        vault.deposit(1e6, ALICE, 0);
        assertEq(inbox.entry(3).depositedTotal, 300e6, "USDT");
        token.setMood(HostileToken.Mood.Honest);
        token.transfer(address(vault), 7e6);
        vault.deposit(1e6, ALICE, 0);
        assertEq(inbox.entry(4).depositedTotal, 301e6, "gifts are nobody's");
    }

    function test_lying_tokens_deposit_nothing() external {
        token.setMood(HostileToken.Mood.MovesNothing);
        vm.expectRevert(abi.encodeWithSelector(IVault.DepositTooSmall.selector, 0, MINIMUM));
        vault.deposit(100e6, ALICE, 0);
        bytes memory failed =
            abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token));
        token.setMood(HostileToken.Mood.ReturnsFalse);
        vm.expectRevert(failed);
        vault.deposit(100e6, ALICE, 0);
        token.setMood(HostileToken.Mood.ReturnsGarbage);
        vm.expectRevert(failed);
        vault.deposit(100e6, ALICE, 0);
    }

    /// @dev A payout takes its amount out of the vault exactly, or does not happen; a refused one
    /// can be claimed again when the token behaves.
    function test_payouts_are_exact_or_wait() external {
        vault.deposit(1e9, ALICE, 0);
        uint64 index = grant(BOB, 100e6);
        uint64 number = settle();
        bytes32[] memory proof = tree.proof(index);
        HostileToken.Mood[3] memory moods = [
            HostileToken.Mood.TakesFeeOnTop,
            HostileToken.Mood.ReturnsFalse,
            HostileToken.Mood.MovesNothing
        ];
        for (uint256 i = 0; i < moods.length; ++i) {
            token.setMood(moods[i]);
            vm.expectRevert();
            vault.claim(number, index, BOB, 100e6, proof);
            assertTrue(!vault.claimed(index), "still to be claimed");
        }
        token.setMood(HostileToken.Mood.TakesFee); // The recipient's loss, not the others'.
        vault.claim(number, index, BOB, 100e6, proof);
        assertEq(token.balanceOf(address(vault)), 900e6, "exact");
    }

    function test_a_blocked_recipient_blocks_nobody_else() external {
        vault.deposit(1e9, ALICE, 0);
        grant(BOB, 100e6);
        grant(ALICE, 50e6);
        uint64 number = settle();
        token.setBlocked(BOB, true);
        bytes32[] memory proof = tree.proof(0);
        vm.expectRevert(abi.encodeWithSelector(HostileToken.Blocked.selector, BOB));
        vault.claim(number, 0, BOB, 100e6, proof);
        vault.claim(number, 1, ALICE, 50e6, tree.proof(1));
        token.setBlocked(BOB, false);
        vault.claim(number, 0, BOB, 100e6, proof);
        assertEq(token.balanceOf(BOB), 100e6, "paid later");
    }

    /// @dev A token that calls back in the midst of a deposit or a payout gets nothing of it.
    function test_reentry_is_refused() external {
        vault.deposit(1e9, ALICE, 0);
        grant(BOB, 100e6);
        grant(BOB, 100e6);
        uint64 number = settle();
        token.setHook(
            address(vault), abi.encodeCall(IVault.claim, (number, 1, BOB, 100e6, tree.proof(1)))
        );
        vault.claim(number, 0, BOB, 100e6, tree.proof(0));
        vault.deposit(50e6, ALICE, 0);
        token.mint(address(token), 1e9);
        token.setHook(address(vault), abi.encodeCall(IVault.deposit, (MINIMUM, ALICE, 0)));
        vault.deposit(50e6, ALICE, 0);
        vault.claim(number, 1, BOB, 100e6, tree.proof(1));
        assertEq(token.hookRuns(), 4, "it tried");
        assertTrue(!token.hookSucceeded(), "in vain");
        assertEq(token.balanceOf(BOB), 200e6, "each once");
        assertEq(inbox.entry(inbox.count()).depositedTotal, 1100e6, "no more than came");
    }

    /// @dev Losses in the network leave the vault short; that blocks those claims and nothing else.
    function test_a_deficit_blocks_no_checkpoint() external {
        vault.deposit(100e6, ALICE, 0);
        grant(BOB, 150e6);
        grant(ALICE, 30e6);
        uint64 number = settle();
        bytes32[] memory proof = tree.proof(0);
        vm.expectRevert();
        vault.claim(number, 0, BOB, 150e6, proof);
        vault.claim(number, 1, ALICE, 30e6, tree.proof(1));
        number = settle();
        vault.deposit(100e6, BOB, 0);
        vault.claim(number, 0, BOB, 150e6, tree.proof(0));
        assertEq(token.balanceOf(BOB), 150e6, "paid when there is money");
    }
}
