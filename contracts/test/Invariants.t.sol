// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Checkpoint, ICheckpoints} from "../src/interfaces/ICheckpoints.sol";
import {IInbox} from "../src/interfaces/IInbox.sol";
import {Fixture} from "./Fixture.sol";
import {HostileToken} from "./HostileTokens.sol";

/// @dev What anybody may do, in any order, with a committee that is honest unless `hostile`: then
/// it signs whatever helps to rob the vault, and the token has its moods.
contract World is Fixture {
    struct Withdrawal {
        address recipient;
        uint256 amount;
        uint256 paid;
    }

    bool public immutable hostile;
    Withdrawal[] public withdrawals;
    uint64[] public numbers;
    uint256[] public sizes; // Of the withdrawals tree, at each of the numbers.
    bytes[] public messages;
    uint256 public given; // Sent to the vault directly.
    uint256 public taken; // Moved out of the vault, by its balance.
    uint256 public arrived; // Moved in by deposits, by its balance.
    uint256 public forged; // Submissions that should never be taken, and were.
    uint256 public blockedClaims; // Due claims of an honest network that failed.
    uint256 public submitted;
    uint256 public claims;

    constructor(bool hostile_) {
        hostile = hostile_;
    }

    function deposit(uint64 amount, uint8 who, uint8 sub) external {
        uint256 sum = bound(amount, MINIMUM, 1e12);
        address wallet = address(uint160(0x1000 + who % 5));
        uint256 before = token.balanceOf(address(vault));
        try vault.deposit(sum, wallet, sub % 32) {
            uint256 received = token.balanceOf(address(vault)) - before;
            arrived += received;
            messages.push(abi.encode(uint256(1), wallet, uint256(sub % 32), received));
        } catch {
            require(hostile, "an honest deposit failed");
        }
    }

    function give(uint64 amount) external {
        if (token.mood() != HostileToken.Mood.Honest) return;
        token.transfer(address(vault), amount);
        given += amount;
    }

    function grantWithdrawal(uint64 amount, uint8 who) external {
        uint256 sum = bound(amount, 1, 1e12);
        uint256 left = inbox.entry(inbox.count()).depositedTotal;
        if (!hostile && withdrawn + sum > left) return;
        address recipient = address(uint160(0x2000 + who % 5));
        uint64 index = tree.append(recipient, sum);
        withdrawals.push(Withdrawal(recipient, sum, 0));
        require(index == withdrawals.length - 1, "index");
        if (!hostile || amount % 2 == 0) withdrawn += sum;
    }

    function wait(uint16 duration) external {
        pass(duration);
    }

    function submitNext(uint16 consume) external {
        pass(2);
        Checkpoint memory c = next();
        uint64 since = checkpoints.accepted(checkpoints.acceptedNumber()).inboxCount;
        if (consume % 4 == 0) c.inboxCount = since + consume % uint64(c.inboxCount - since + 1);
        IInbox.Entry memory entry = inbox.entry(c.inboxCount);
        c.inboxHash = entry.chained;
        c.netTotal = int256(uint256(entry.depositedTotal)) - int256(c.withdrawnTotal);
        if (!hostile && c.netTotal < 0) return;
        try checkpoints.submit(c, sign(c)) {
            numbers.push(c.number);
            sizes.push(tree.size());
            ++submitted;
        } catch {}
    }

    /// @dev A checkpoint with one thing wrong, signed by the group's key all the same.
    function submitWrong(uint256 what, uint64 by) external {
        pass(2);
        Checkpoint memory c = next();
        uint64 step = by % 1000 + 1;
        what = what % 9;
        if (what == 0) c.epoch += step;
        if (what == 1) c.inboxHash ^= bytes32(uint256(step));
        if (what == 2) c.netTotal += int256(uint256(step));
        if (what == 3) c.number += step;
        if (what == 4) c.stateRoot = 0;
        if (what == 5) c.withdrawalsRoot = 0;
        if (what == 6) c.height = checkpoints.acceptedHeight();
        if (what == 7) c.nextEpochHash = bytes32(uint256(step));
        if (what == 8) c.inboxCount += step;
        _mustFail(c, sign(c));
    }

    /// @dev A right checkpoint with a signature that is not the group's over it.
    function submitForged(uint256 secret, uint256 how) external {
        pass(2);
        Checkpoint memory c = next();
        bytes memory signature = how % 3 == 0 ? new bytes(128) : sign(c);
        if (how % 3 == 1) signature[how % 128] ^= bytes1(uint8(1 + secret % 255));
        if (how % 3 == 2) c.snapshotRoot ^= bytes32(secret | 1);
        _mustFail(c, signature);
    }

    function claim(uint256 which, uint256 against, uint256 twist) external {
        if (withdrawals.length == 0 || numbers.length == 0) return;
        uint64 index = uint64(which % withdrawals.length);
        against %= numbers.length;
        uint64 number = numbers[against];
        Withdrawal storage w = withdrawals[index];
        bytes32[] memory proof = tree.proofAt(index, sizes[against]);
        uint256 amount = twist % 5 == 0 ? w.amount + 1 : w.amount;
        address recipient = twist % 5 == 1 ? address(this) : w.recipient;
        bool right =
            twist % 5 > 1 && w.paid == 0 && checkpoints.isFinal(number) && index < sizes[against];
        uint256 before = token.balanceOf(address(vault));
        try vault.claim(number, index, recipient, amount, proof) {
            require(twist % 5 > 1, "paid another amount or somebody else");
            w.paid += 1;
            taken += before - token.balanceOf(address(vault));
            ++claims;
        } catch {
            if (right) ++blockedClaims;
        }
    }

    function setMood(uint8 mood, uint8 who) external {
        if (!hostile) return;
        token.setMood(HostileToken.Mood(mood % 8));
        token.setBlocked(address(uint160(0x2000 + who % 5)), mood % 2 == 0);
        bytes32[] memory none = new bytes32[](32);
        bytes memory hook = mood % 3 == 0
            ? abi.encodeCall(vault.deposit, (MINIMUM, address(1), 0))
            : abi.encodeCall(vault.claim, (1, 0, address(1), 1, none));
        token.setHook(mood % 5 == 0 ? address(0) : address(vault), hook);
    }

    function withdrawalCount() external view returns (uint256) {
        return withdrawals.length;
    }

    function messageCount() external view returns (uint256) {
        return messages.length;
    }

    function numberCount() external view returns (uint256) {
        return numbers.length;
    }

    function parts() external view returns (HostileToken, address, IInbox, ICheckpoints) {
        return (token, address(vault), inbox, checkpoints);
    }

    function claimedTotal() external view returns (uint256) {
        return vault.claimedTotal();
    }

    function _mustFail(Checkpoint memory c, bytes memory signature) private {
        // Enough to accept it; a precompile that refuses its input burns all it is given.
        try checkpoints.submit{gas: 1e6}(c, signature) {
            ++forged;
        } catch {}
    }
}

/// @dev The invariants, for an honest world; `HostileInvariantsTest` repeats them for the other.
contract InvariantsTest is Fixture {
    World internal world = _make();

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(world);
    }

    /// @dev Every coin is where it should be: payouts never exceed deposits.
    function invariant_payouts_come_from_deposits() external view {
        (HostileToken token_, address vault_,,) = world.parts();
        uint256 held = token_.balanceOf(vault_);
        assertEq(held + world.taken(), world.arrived() + world.given(), "balance");
        assertTrue(world.taken() <= world.arrived() + world.given(), "more out than in");
        assertEq(world.claimedTotal(), world.taken(), "claims are what left");
    }

    function invariant_each_withdrawal_is_paid_at_most_once() external view {
        uint256 paid;
        for (uint256 i = 0; i < world.withdrawalCount(); ++i) {
            (, uint256 amount, uint256 times) = world.withdrawals(i);
            assertTrue(times <= 1, "paid twice");
            paid += times * amount;
        }
        assertEq(paid, world.claimedTotal(), "sum");
    }

    function invariant_the_inbox_is_in_order() external view {
        (,, IInbox inbox_,) = world.parts();
        bytes32 chained = keccak256("fairlane.inbox.v1");
        uint256 total;
        assertEq(inbox_.count(), world.messageCount(), "count");
        for (uint256 i = 0; i < world.messageCount(); ++i) {
            bytes memory message = world.messages(i);
            (,,, uint256 amount) = abi.decode(message, (uint256, address, uint256, uint256));
            chained = keccak256(abi.encodePacked(chained, keccak256(message)));
            total += amount;
            IInbox.Entry memory entry = inbox_.entry(i + 1);
            assertTrue(entry.chained == chained, "chain");
            assertEq(entry.depositedTotal, total, "total");
        }
    }

    function invariant_nothing_wrong_is_accepted() external view {
        assertEq(world.forged(), 0, "accepted");
    }

    function invariant_checkpoints_grow_and_have_roots() external view {
        (,,, ICheckpoints checkpoints_) = world.parts();
        ICheckpoints.Accepted memory before;
        uint64 number;
        for (uint256 i = 0; i < world.numberCount(); ++i) {
            assertTrue(world.numbers(i) > number, "number");
            number = world.numbers(i);
            ICheckpoints.Accepted memory kept = checkpoints_.accepted(number);
            assertTrue(kept.withdrawalsRoot != 0 && kept.stateRoot != 0, "zero root");
            assertTrue(kept.acceptedAt >= before.acceptedAt && kept.acceptedAt > 0, "time");
            assertTrue(kept.inboxCount >= before.inboxCount, "inbox count");
            assertTrue(kept.withdrawnTotal >= before.withdrawnTotal, "withdrawn");
            before = kept;
        }
        assertTrue(checkpoints_.acceptedNumber() == number, "last");
        assertTrue(checkpoints_.accepted(number + 1).withdrawalsRoot == 0, "one that is not");
        assertTrue(!checkpoints_.isFinal(number + 1), "one that is not is not final");
        assertTrue(world.claimedTotal() <= before.withdrawnTotal, "claims above withdrawn");
    }

    /// @dev While the committee and the token are honest, every due claim is paid.
    function invariant_honest_claims_are_paid() external view {
        if (!world.hostile()) assertEq(world.blockedClaims(), 0, "a due claim failed");
    }

    /// @dev The world does what the invariants are about: they are not kept by standing still.
    function test_the_world_turns() external {
        for (uint256 i = 0; i < 400; ++i) {
            uint256 dice = uint256(keccak256(abi.encode(i)));
            uint256 act = dice % 7;
            dice >>= 8;
            if (act == 0) world.deposit(uint64(dice), uint8(dice >> 64), uint8(dice >> 72));
            if (act == 1) world.grantWithdrawal(uint64(dice), uint8(dice >> 64));
            if (act == 2) world.wait(uint16(dice));
            if (act == 3) world.submitNext(uint16(dice));
            if (act == 4) world.submitWrong(dice, uint64(dice >> 128));
            if (act == 5) world.submitForged(dice, dice >> 128);
            if (act == 6) world.claim(dice, dice >> 64, dice >> 128);
        }
        assertTrue(world.submitted() > 20, "submitted");
        assertTrue(world.claims() > (world.hostile() ? 1 : 5), "claimed");
        assertTrue(world.messageCount() > 20, "deposited");
        this.invariant_payouts_come_from_deposits();
        this.invariant_each_withdrawal_is_paid_at_most_once();
        this.invariant_the_inbox_is_in_order();
        this.invariant_nothing_wrong_is_accepted();
        this.invariant_checkpoints_grow_and_have_roots();
        this.invariant_honest_claims_are_paid();
    }

    function _make() internal virtual returns (World) {
        return new World(false);
    }
}

contract HostileInvariantsTest is InvariantsTest {
    function _make() internal override returns (World) {
        return new World(true);
    }
}
