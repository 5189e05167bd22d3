/* The voting rules of docs/protocol/consensus.md, for spin: four replicas (or five), one of them a liar.
 *
 * What is modelled.  Each honest replica is a process with its durable record. It may at any time do
 * any of five things: vote, take a QC (and commit-vote), time out, take a TC (and enter its round),
 * come back from a crash. Whoever can commit a block by either rule does so at once: see `commit`.
 * What is not.  Leaders, logs and the network. Every block that certificates let stand may be proposed,
 * up to SLOTS a round, and every message that was ever sent may arrive at any time, in any order, or
 * never. So what holds here holds under every schedule.
 * The liar has signed every vote, commit vote and timeout, for all blocks and rounds at once: QUORUM - 1
 * honest statements make a certificate, and what it says needs no state. Its timeouts name the oldest QC, which forbids least.
 *
 * Flags: ROUNDS, SLOTS (proposals a round, at most 8 blocks in all); SYMMETRY keeps one state of those
 * that differ in the replicas' names; AGREEMENT_ONLY drops all claims but the first. Each M_ flag takes
 * one rule away. tests/formal/spin.py compiles and runs this.
 */

#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef SLOTS
#define SLOTS 2
#endif

/* Three honest replicas and a liar: a quorum of 3. With HONEST=4 (n = 5) it is 4, and 2f+1 = 3 forks. */
#ifndef HONEST
#define HONEST 3
#endif
#ifdef M_QUORUM
#define QUORUM (HONEST - 1)
#else
#define QUORUM HONEST
#endif
#define NEEDED (QUORUM - 1)

/* Block 0 is the genesis', of round 0; then SLOTS blocks a round. */
#define BLOCKS (ROUNDS * SLOTS)
#define ROUND(b) (((b) + SLOTS - 1) / SLOTS)
#define NONE 255

typedef Replica {
    byte last_voted;
    byte hi_timeout;
    byte lock;              /* the block that the highest QC known certifies */
    byte hi_tc;             /* the round of the highest TC known, 0 once the lock is no lower */
    byte commit_voted;      /* the round of the last commit vote */
    byte round = 1;         /* the only field that a crash forgets */
    byte votes;             /* bit b - 1: block b has this replica's vote */
    byte commits;           /* bit b - 1: its commit vote */
    byte given_up[ROUNDS + 1];  /* [r], bit l: it sent a timeout of r that names a QC of round l */
}

Replica h[HONEST];
byte parent[BLOCKS + 1] = NONE;     /* NONE while the block was not voted for by anybody honest */
byte chain[BLOCKS + 1];             /* bit b - 1: block b is it or one of its ancestors */
byte done;                          /* bit b - 1: somebody may have committed block b directly */
byte k, c;                          /* counters, 0 between steps */

#define BIT(b) (1 << ((b) - 1))
#define SAYS(i, field, b) ((h[i].field >> ((b) - 1)) & 1)
#if HONEST == 3
#define COUNT(what, x, y) (what(0, x, y) + what(1, x, y) + what(2, x, y))
#else
#define COUNT(what, x, y) (what(0, x, y) + what(1, x, y) + what(2, x, y) + what(3, x, y))
#endif
#define SAID(field, b) COUNT(SAYS, field, b)
#define CERTIFIED(b) ((b) == 0 || SAID(votes, b) >= NEEDED)

/* Whether a TC of round r can be formed that names no QC above round `high`. */
#define GAVE_UP(i, r, high) ((h[i].given_up[r] & ((2 << (high)) - 1)) != 0)
#define TC(r, high) (COUNT(GAVE_UP, r, high) >= NEEDED)

#ifdef M_TC
#define FITS(r, p) (TC((r) - 1, ROUNDS))
#else
#define FITS(r, p) (TC((r) - 1, ROUND(p)))
#endif

/* Whether block b may stand on p: its QC is of the round before, or its TC is and names no higher QC. */
#define STANDS(b, p) (CERTIFIED(p) && (ROUND(p) + 1 == ROUND(b) || FITS(ROUND(b), p)))
/* Whether b is proposed on p, or could be. Of the slots of a round the first is filled first. */
#define PROPOSED(b, p) \
    (parent[b] == p || (parent[b] == NONE && ((b) % SLOTS == 1 % SLOTS || parent[(b) - 1] != NONE)))

#define ME h[_pid]
#define MAX(x, y) ((x) > (y) -> (x) : (y))

#ifdef SYMMETRY
c_code {
    static int by_bytes(const void *x, const void *y) { return memcmp(x, y, sizeof(struct Replica)); }
    static void sort_replicas(void) { qsort(&now.h[0], HONEST, sizeof(struct Replica), by_bytes); }
}
#define RENAME c_code { sort_replicas(); }
#else
#define RENAME skip
#endif

/* Commit by either rule: a quorum of commit votes, or a certified child of the very next round. */
#ifdef M_GAP
#define FOLLOWS(child, b) true
#else
#define FOLLOWS(child, b) (ROUND(child) == ROUND(b) + 1)
#endif

inline commit() {
    for (k : 1 .. BLOCKS) {
        if
        :: parent[k] != NONE && SAID(commits, k) >= NEEDED -> done = done | BIT(k)
        :: else
        fi;
        if
        :: parent[k] != NONE && parent[k] != 0 && CERTIFIED(k) && FOLLOWS(k, parent[k]) ->
            done = done | BIT(parent[k])
        :: else
        fi
    }
    /* Agreement: all committed blocks are on the chain of the highest of them. */
    for (k : 1 .. BLOCKS) {
        if
        :: done & BIT(k) -> c = k
        :: else
        fi
    }
    assert(c == 0 || (done & ~chain[c]) == 0);
#ifdef REACH
    assert(!(done & BIT(REACH)));
#endif
#ifndef AGREEMENT_ONLY
    for (k : 1 .. BLOCKS) {
        if
        :: parent[k] != NONE && CERTIFIED(k) ->
            for (c : 1 .. BLOCKS) {
                /* One certificate a round, and none that leaves a committed block of an earlier one. */
                assert(c == k || ROUND(c) != ROUND(k) || parent[c] == NONE || !CERTIFIED(c));
                assert(!(done & BIT(c)) || ROUND(c) > ROUND(k) || (chain[k] & BIT(c)))
            }
        :: else
        fi
    }
#endif
    k = 0;
    c = 0
}

/* What holds of each replica alone. */
inline blameless() {
#ifndef AGREEMENT_ONLY
    /* It may always give up the round that it is in: else a silent leader would stop it for good. */
    assert(ME.round == ROUND(ME.lock) + 1 || ME.round == ME.hi_tc + 1);
    assert(ME.last_voted <= ME.round);
    for (k : 1 .. BLOCKS) {
        for (c : 1 .. ROUNDS) {
            /* What evidence would be: a timeout that hides a QC which it commit-voted. */
            assert(!(ME.commits & BIT(k)) || c < ROUND(k)
                || !(ME.given_up[c] & ((1 << ROUND(k)) - 1)))
        }
        for (c : 1 .. BLOCKS) {
            assert(c == k || ROUND(c) != ROUND(k) || !(ME.votes & BIT(k)) || !(ME.votes & BIT(c)))
        }
    }
    k = 0;
    c = 0
#else
    skip
#endif
}

inline raise_lock(b) {
    ME.lock = (ROUND(b) > ROUND(ME.lock) -> b : ME.lock);
    ME.hi_tc = (ROUND(ME.lock) >= ME.hi_tc -> 0 : ME.hi_tc)
}

#if defined(COMMIT_VOTES_LOST)
#define MAY_COMMIT_VOTE(b) false
#elif defined(M_HI_TIMEOUT)
#define MAY_COMMIT_VOTE(b) (ROUND(b) > ME.commit_voted)
#else
#define MAY_COMMIT_VOTE(b) (ROUND(b) > ME.hi_timeout && ROUND(b) > ME.commit_voted)
#endif

inline take_qc(b) {
    if
    :: MAY_COMMIT_VOTE(b) ->
        ME.commits = ME.commits | BIT(b);
        ME.commit_voted = ROUND(b);
#ifndef M_LEAVES_LOCK
        raise_lock(b)
#endif
    :: else ->
#ifdef M_LOCK_WITH_COMMIT
        skip
#else
        raise_lock(b)
#endif
    fi;
    ME.round = MAX(ME.round, ROUND(b) + 1)
}

/* Whether taking in the QC of block b would change something. */
#if defined(M_LOCK_WITH_COMMIT)
#define RAISES(b) false
#elif defined(M_LEAVES_LOCK)
#define RAISES(b) (ROUND(b) > ROUND(ME.lock) && ROUND(b) != ME.commit_voted)
#else
#define RAISES(b) (ROUND(b) > ROUND(ME.lock))
#endif
#define NEWS(b) (MAY_COMMIT_VOTE(b) || ROUND(b) >= ME.round || RAISES(b))

/* A proposal's QC is taken in before the vote for it, so whatever that changes is due first. */
#define VOTE(b, p) \
    :: d_step { \
        ME.round == ROUND(b) && ME.last_voted < ROUND(b) && PROPOSED(b, p) && STANDS(b, p) && \
        ((p) == 0 || !NEWS(p)) -> \
        printf("replica %d votes for block %d, of round %d on block %d\n", _pid, b, ROUND(b), p); \
        parent[b] = p; \
        chain[b] = chain[p] | BIT(b); \
        ME.votes = ME.votes | BIT(b); \
        ME.last_voted = ROUND(b); \
        if \
        :: RAISES(p) -> raise_lock(p) \
        :: else \
        fi \
    }

#define TAKE_QC(b) \
    :: d_step { \
        CERTIFIED(b) && NEWS(b) -> \
        printf("replica %d takes the QC of block %d (commit vote: %d)\n", _pid, b, MAY_COMMIT_VOTE(b)); \
        take_qc(b) \
    }

/* Only the TC that names least: one that names a higher QC is that QC first, then this TC. */
#define TAKE_TC(r, b) \
    :: d_step { \
        (r) < ROUNDS && ROUND(b) < (r) && (r) >= ME.round && CERTIFIED(b) && \
        TC(r, ROUND(b)) && (ROUND(b) == 0 || !TC(r, ROUND(b) - 1)) -> \
        printf("replica %d takes a TC of round %d that names round %d\n", _pid, r, ROUND(b)); \
        if \
        :: (b) != 0 && NEWS(b) -> take_qc(b) \
        :: else \
        fi; \
        ME.hi_tc = r; \
        ME.round = (r) + 1 \
    }

/* Giving up the last round would only take commit votes away: there is no round after it. */
#define TIME_OUT \
    :: d_step { \
        ME.round < ROUNDS && ME.last_voted <= ME.round && \
        (ROUND(ME.lock) + 1 == ME.round || ME.hi_tc + 1 == ME.round) && \
        !(ME.given_up[ME.round] & (1 << ROUND(ME.lock))) -> \
        printf("replica %d gives up round %d and names round %d\n", _pid, ME.round, ROUND(ME.lock)); \
        ME.given_up[ME.round] = ME.given_up[ME.round] | (1 << ROUND(ME.lock)); \
        ME.last_voted = ME.round; \
        ME.hi_timeout = ME.round \
    }

/* A crash forgets what is not in the durable record; without a mutation that changes nothing. */
#define OPENED (MAX(ROUND(ME.lock), ME.hi_tc) + 1)
#ifdef M_FORGETS
#define FORGOTTEN (ME.last_voted != 0)
#else
#define FORGOTTEN false
#endif
#define RESTART \
    :: d_step { \
        ME.round != OPENED || FORGOTTEN -> \
        printf("replica %d crashes and comes back\n", _pid); \
        ME.round = OPENED; \
        ME.last_voted = (FORGOTTEN -> 0 : ME.last_voted) \
    }

active [HONEST] proctype honest() {
end:
    do
    :: atomic {
        if
        VOTE(1, 0)
        TAKE_QC(1)
#if BLOCKS >= 2
        VOTE(2, 0) VOTE(2, 1)
        TAKE_QC(2)
#endif
#if BLOCKS >= 3
        VOTE(3, 0) VOTE(3, 1) VOTE(3, 2)
        TAKE_QC(3)
#endif
#if BLOCKS >= 4
        VOTE(4, 0) VOTE(4, 1) VOTE(4, 2) VOTE(4, 3)
        TAKE_QC(4)
#endif
#if BLOCKS >= 5
        VOTE(5, 0) VOTE(5, 1) VOTE(5, 2) VOTE(5, 3) VOTE(5, 4)
        TAKE_QC(5)
#endif
#if BLOCKS >= 6
        VOTE(6, 0) VOTE(6, 1) VOTE(6, 2) VOTE(6, 3) VOTE(6, 4) VOTE(6, 5)
        TAKE_QC(6)
#endif
#if BLOCKS >= 7
        VOTE(7, 0) VOTE(7, 1) VOTE(7, 2) VOTE(7, 3) VOTE(7, 4) VOTE(7, 5) VOTE(7, 6)
        TAKE_QC(7)
#endif
#if BLOCKS >= 8
        VOTE(8, 0) VOTE(8, 1) VOTE(8, 2) VOTE(8, 3) VOTE(8, 4) VOTE(8, 5) VOTE(8, 6) VOTE(8, 7)
        TAKE_QC(8)
#endif
        TAKE_TC(1, 0)
#if ROUNDS >= 3
        TAKE_TC(2, 0) TAKE_TC(2, 1) TAKE_TC(2, 2)
#endif
#if ROUNDS >= 4
        TAKE_TC(3, 0) TAKE_TC(3, 1) TAKE_TC(3, 2) TAKE_TC(3, 3) TAKE_TC(3, 4)
#endif
        TIME_OUT
        RESTART
        fi;
        d_step {
            commit();
            blameless();
            RENAME
        }
    }
    od
}
