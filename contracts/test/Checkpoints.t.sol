// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Vault} from "../src/Vault.sol";
import {Checkpoint, CheckpointsConfig, ICheckpoints} from "../src/interfaces/ICheckpoints.sol";
import {Checkpoints} from "../src/Checkpoints.sol";
import {Bls} from "./Bls.sol";
import {Fixture} from "./Fixture.sol";

contract CheckpointsTest is Fixture {
    uint256 private constant HOME_CHAIN = 31337;

    function test_an_honest_checkpoint_is_accepted_and_kept() external {
        vault.deposit(5e6, address(1), 0);
        Checkpoint memory c = next();
        submit(c);
        ICheckpoints.Accepted memory kept = checkpoints.accepted(c.number);
        assertTrue(checkpoints.acceptedNumber() == c.number, "number");
        assertTrue(kept.withdrawalsRoot == c.withdrawalsRoot, "withdrawals root");
        assertTrue(kept.stateRoot == c.stateRoot, "state root");
        assertEq(kept.acceptedAt, clock, "time");
        assertEq(kept.inboxCount, 1, "count");
        assertEq(kept.positiveTotal, 5e6, "positive total");
    }

    /// @dev Whatever single field is changed after signing, the signature is not for it.
    function test_fuzz_a_signature_covers_every_field(uint256 field, uint256 value) external {
        vault.deposit(5e6, address(1), 0);
        Checkpoint memory c = next();
        bytes memory signature = sign(c);
        bytes32 signed = checkpoints.digest(c);
        field = bound(field, 0, 14);
        assembly {
            let word := add(c, mul(field, 32))
            let changed := value
            // The first four, inboxCount and dataSince are uint64.
            if or(lt(field, 4), or(eq(field, 8), eq(field, 12))) {
                changed := and(value, 0xffffffffffffffff)
            }
            if eq(changed, mload(word)) { changed := xor(changed, 1) }
            mstore(word, changed)
        }
        assertTrue(checkpoints.digest(c) != signed, "digest");
        vm.expectRevert();
        checkpoints.submit(c, signature);
    }

    function test_fuzz_no_other_signature_is_taken(bytes calldata signature, uint256 secret)
        external
    {
        Checkpoint memory c = next();
        bytes32 digest = checkpoints.digest(c);
        secret = bound(secret, 1, Bls.ORDER - 1);
        vm.assume(secret != SECRET && keccak256(signature) != keccak256(sign(c)));
        vm.expectRevert(ICheckpoints.BadSignature.selector);
        checkpoints.submit(c, signature);
        bytes memory other = Bls.sign(secret, digest);
        vm.expectRevert(ICheckpoints.BadSignature.selector);
        checkpoints.submit(c, other);
    }

    function test_fuzz_a_digest_is_of_one_chain_and_contract(uint64 chain) external {
        vm.assume(chain != HOME_CHAIN && chain != 0);
        Checkpoint memory c = next();
        bytes memory signature = sign(c);
        ICheckpoints twin = deploy(Bls.publicKey(SECRET)).checkpoints();
        vm.expectRevert(ICheckpoints.BadSignature.selector);
        twin.submit(c, signature);
        vm.chainId(chain);
        vm.expectRevert(ICheckpoints.BadSignature.selector);
        checkpoints.submit(c, signature);
        vm.chainId(HOME_CHAIN);
        checkpoints.submit(c, signature);
    }

    /// @dev Each rule by itself: all else is right, and the group signed it.
    function test_every_rule_has_its_error() external {
        vault.deposit(5e6, address(1), 0);
        Checkpoint memory c = next();
        c.height = 7;
        submit(c);
        pass(INTERVAL_MS / 1000);
        bytes4[10] memory errors = [
            ICheckpoints.WrongEpoch.selector,
            ICheckpoints.WrongNumber.selector,
            ICheckpoints.HeightNotGrowing.selector,
            ICheckpoints.ZeroRoot.selector,
            ICheckpoints.ZeroRoot.selector,
            ICheckpoints.ZeroRoot.selector,
            ICheckpoints.ReservedField.selector,
            ICheckpoints.ReservedField.selector,
            ICheckpoints.ReservedField.selector,
            ICheckpoints.InboxHashMismatch.selector
        ];
        for (uint256 i = 0; i < errors.length; ++i) {
            c = next();
            if (i == 0) c.epoch = 2;
            if (i == 1) c.number += 1;
            if (i == 2) c.height = 7;
            if (i == 3) c.stateRoot = 0;
            if (i == 4) c.snapshotRoot = 0;
            if (i == 5) c.withdrawalsRoot = 0;
            if (i == 6) c.dataSince = 1;
            if (i == 7) c.dataHash = 0;
            if (i == 8) c.nextEpochHash = ROOT;
            if (i == 9) c.inboxHash = ROOT;
            bytes memory signature = sign(c);
            try checkpoints.submit(c, signature) {
                assertTrue(false, "accepted");
            } catch (bytes memory reason) {
                assertTrue(bytes4(reason) == errors[i], "another error");
            }
        }
        submit(next());
    }

    function test_an_accepted_checkpoint_is_not_accepted_again() external {
        Checkpoint memory c = next();
        bytes memory signature = sign(c);
        checkpoints.submit(c, signature);
        vm.expectRevert(
            abi.encodeWithSelector(ICheckpoints.NumberNotGrowing.selector, c.number, c.number)
        );
        checkpoints.submit(c, signature);
    }

    /// @dev Of two validly signed checkpoints the second is taken only when number and height grow;
    /// time then grows as well.
    function test_fuzz_number_height_and_time_grow(uint32 dt, uint64 dh, uint256 back) external {
        Checkpoint memory first = next();
        first.height = 1 << 40;
        submit(first);
        Checkpoint memory c = next();
        pass(1 days);
        c.blockTimeMs = first.blockTimeMs + dt % 1 days - 1 hours;
        c.number = c.blockTimeMs / INTERVAL_MS;
        c.height =
            uint64(back % 3 == 0 ? first.height - dh % first.height : first.height + dh % 1e9);
        bool grows = c.number > first.number && c.height > first.height;
        bytes memory signature = sign(c);
        try checkpoints.submit(c, signature) {
            assertTrue(grows, "went back");
            assertTrue(c.blockTimeMs > first.blockTimeMs, "time went back");
        } catch {
            assertTrue(!grows, "refused");
        }
    }

    function test_fuzz_time_is_at_most_a_minute_ahead(uint32 ahead) external {
        ahead = uint32(bound(ahead, 0, 10 minutes));
        Checkpoint memory c = next();
        c.blockTimeMs = uint64(clock * 1000) + ahead * 1000;
        c.number = c.blockTimeMs / INTERVAL_MS;
        bytes memory signature = sign(c);
        try checkpoints.submit(c, signature) {
            assertTrue(ahead <= 60, "too far ahead");
        } catch {
            assertTrue(ahead > 60, "refused");
        }
    }

    /// @dev A message older than the delay must be consumed, but never more than 64 at once.
    function test_fuzz_old_messages_are_consumed(uint8 old, uint8 young, uint8 take) external {
        uint256 olds = bound(old, 0, 80);
        uint256 all = olds + bound(young, 0, 5);
        for (uint256 i = 0; i < all; ++i) {
            if (i == olds) pass(INCLUSION_DELAY);
            vault.deposit(1e6, address(1), 0);
        }
        if (all == olds) pass(INCLUSION_DELAY);
        pass(1);
        Checkpoint memory c = next();
        c.inboxCount = uint64(bound(take, 0, all));
        c.inboxHash = inbox.entry(c.inboxCount).chained;
        c.netTotal = int256(uint256(inbox.entry(c.inboxCount).depositedTotal));
        bool enough = c.inboxCount >= (olds < 64 ? olds : 64);
        bytes memory signature = sign(c);
        try checkpoints.submit(c, signature) {
            assertTrue(enough, "ignored old messages");
        } catch {
            assertTrue(!enough, "refused");
        }
    }

    function test_sixty_four_old_messages_are_enough_and_fewer_are_not() external {
        for (uint256 i = 0; i < 65; ++i) {
            vault.deposit(1e6, address(1), 0);
        }
        pass(INCLUSION_DELAY + 1);
        for (uint64 take = 63; take <= 64; ++take) {
            Checkpoint memory c = next();
            c.inboxCount = take;
            c.inboxHash = inbox.entry(take).chained;
            c.netTotal = int256(uint256(take)) * 1e6;
            bytes memory signature = sign(c);
            if (take == 63) {
                vm.expectRevert(abi.encodeWithSelector(ICheckpoints.InboxIgnored.selector, take));
            }
            checkpoints.submit(c, signature);
        }
    }

    /// @dev Deposits less withdrawals, and nothing else, whatever the committee signs.
    function test_fuzz_net_total_is_deposits_less_withdrawals(uint64 gone, int256 net) external {
        vault.deposit(5e6, address(1), 0);
        Checkpoint memory c = next();
        c.withdrawnTotal = gone;
        int256 right = 5e6 - int256(uint256(gone));
        c.netTotal = right;
        uint256 positive = uint256(gone);
        c.positiveTotal = positive;
        bytes memory signature;
        if (net != right) {
            c.netTotal = net;
            signature = sign(c);
            vm.expectRevert(
                abi.encodeWithSelector(ICheckpoints.NetTotalMismatch.selector, net, right)
            );
            checkpoints.submit(c, signature);
            c.netTotal = right;
        }
        // Losses do not block: withdrawals may be above deposits, net totals negative.
        submit(c);
    }

    function test_what_was_consumed_or_withdrawn_stays_so() external {
        vault.deposit(5e6, address(1), 0);
        withdrawn = 2e6;
        settle();
        Checkpoint memory c = next();
        c.withdrawnTotal = 1e6;
        c.netTotal = 4e6;
        bytes memory signature = sign(c);
        vm.expectRevert(
            abi.encodeWithSelector(ICheckpoints.WithdrawnTotalWentBack.selector, 1e6, 2e6)
        );
        checkpoints.submit(c, signature);
        c = next();
        c.inboxCount = 0;
        c.inboxHash = inbox.entry(0).chained;
        c.netTotal = -2e6;
        signature = sign(c);
        vm.expectRevert(abi.encodeWithSelector(ICheckpoints.InboxCountWentBack.selector, 0, 1));
        checkpoints.submit(c, signature);
        submit(next());
    }

    function test_a_checkpoint_is_final_after_the_delay() external {
        Checkpoint memory c = next();
        assertTrue(!checkpoints.isFinal(c.number), "not accepted");
        submit(c);
        pass(DISPUTE_DELAY - 1);
        assertTrue(!checkpoints.isFinal(c.number), "too early");
        pass(1);
        assertTrue(checkpoints.isFinal(c.number), "final");
        assertTrue(!checkpoints.isFinal(c.number + 1), "its neighbour is not");
    }

    function test_a_contract_needs_a_key_and_an_interval() external {
        CheckpointsConfig memory config = CheckpointsConfig(0, 1, 1, Bls.publicKey(1));
        vm.expectRevert(ICheckpoints.ZeroInterval.selector);
        new Checkpoints(inbox, config);
        config.intervalMs = 1;
        config.groupKey = new bytes(256);
        vm.expectRevert(ICheckpoints.BadGroupKey.selector);
        new Checkpoints(inbox, config);
        config.groupKey = new bytes(0);
        vm.expectRevert(ICheckpoints.BadGroupKey.selector);
        new Checkpoints(inbox, config);
    }
}
