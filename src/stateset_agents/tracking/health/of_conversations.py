"""Signs in the conversations: who failed, what was cut, and how the replies read.

Invariant: shares are of all that was counted over the run, however unevenly it lies over the steps.
"""

from __future__ import annotations

from .evidence import FEWEST_IN_A_WINDOW, Evidence
from .signal import HealthStatus, Look, Signal

FAILED_SHARE = 0.05
"""Share of episodes that may fail."""
BROKEN_SHARE = 0.5
"""Share of failed episodes from which on the numbers mean nothing."""
TRUNCATED_SHARE = 0.3
"""Share of episodes that may be cut by a limit."""
CUT_REPLIES_SHARE = 0.5
"""Share of replies that may be cut by max_new_tokens."""
REPEATED_SHARE = 0.3
"""Share of a reply's 4-grams that may have stood in it before. Ordinary prose has a few in a hundred; a loop has nearly
all."""
LONGER = 1.2
"""Factor by which conversations must have grown at least: less changes nothing about what a run costs."""

CULPRITS = {
    "failed_environment": ("environment", "mend the environment or its tools, or raise environment_timeout"),
    "failed_user": ("user", "look at the model that plays the user: its address, its limits and its timeouts"),
    "failed_reward": ("reward", "mend the reward or its judge, or raise reward_timeout"),
    "failed_agent": ("agent", "mend the agent's process_turn"),
    "unscored": ("unscored", "see why the reward declines to score"),
}
"""Who can fail, by the key that counts it: its name, and what helps."""


def failures(evidence: Evidence) -> Look | None:
    """By who failed."""
    played = evidence.total("step_episodes")
    if not played:
        return None
    counts = {key: evidence.total(key) for key in CULPRITS}
    failed = evidence.total("failed") + counts["unscored"]
    share = failed / played
    if share <= FAILED_SHARE:
        return Look(share, f"{share:.1%}")
    who = ", ".join(f"{counts[key]:.0f} {name}" for key, (name, _) in CULPRITS.items() if counts[key])
    most = max(CULPRITS, key=counts.__getitem__)
    helps = f"; {CULPRITS[most][1]}" if counts[most] else ""
    return Look(
        share,
        f"{share:.1%}",
        f"{failed:.0f} of {played:.0f} episodes failed or could not be scored" + (f" ({who})" if who else ""),
        HealthStatus.CRITICAL if share > BROKEN_SHARE else None,
        f"trajectories.jsonl says why{helps}",
    )


def truncated(evidence: Evidence) -> Look | None:
    """Episodes that a limit cut."""
    played = evidence.total("step_episodes")
    if not played:
        return None
    share = evidence.total("truncated") / played
    wrong = f"{share:.0%} of the episodes were cut by a limit"
    return Look(share, f"{share:.0%}", wrong if share > TRUNCATED_SHARE else None)


def cut_replies(evidence: Evidence) -> Look | None:
    """Replies that `max_new_tokens` cut."""
    replies = evidence.total("replies")
    if not replies:
        return None
    share = evidence.total("cut_replies") / replies
    wrong = f"{share:.0%} of the replies were cut by max_new_tokens"
    return Look(share, f"{share:.0%}", wrong if share > CUT_REPLIES_SHARE else None)


def length(evidence: Evidence) -> Look | None:
    """Sampled tokens of a conversation, against the reward."""
    pairs = [(row.get("sampled_tokens"), row.get("step_episodes")) for row in evidence.rows]
    tokens = [sampled / played for sampled, played in pairs if sampled and played]
    change = evidence.trend(tokens)
    if evidence.read or change is None:
        return None
    grew = change.low > 0 and change.after > LONGER * change.before and evidence.learning.verdict != "yes"
    shown = f"{change.before:.0f} to {change.after:.0f} tokens"
    wrong = f"The conversations grew from {shown}, and the reward did not"
    return Look(change.after / change.before, shown, wrong if grew else None)


def repetition(evidence: Evidence) -> Look | None:
    """At the end."""
    value = evidence.end("repeated_ngrams")
    if value is None:
        return None
    wrong = f"The replies repeat themselves ({value:.0%} of their 4-grams stood in them before)"
    return Look(value, f"{value:.0%}", wrong if value > REPEATED_SHARE else None)


SIGNALS = (
    Signal(
        "Failed episodes",
        ("step_episodes", "failed", *CULPRITS),
        f"more than {FAILED_SHARE:.0%}; CRITICAL above {BROKEN_SHARE:.0%}",
        "Conversations that are in no mean and taught nothing, by who failed: environment, user, reward or agent.",
        "trajectories.jsonl says why",
        HealthStatus.WARNING,
        failures,
    ),
    Signal(
        "Truncated episodes",
        ("step_episodes", "truncated"),
        f"more than {TRUNCATED_SHARE:.0%}",
        "Conversations that ended because of a limit and not because they were over.",
        "raise max_turns or the context",
        HealthStatus.WARNING,
        truncated,
    ),
    Signal(
        "Cut replies",
        ("replies", "cut_replies"),
        f"more than {CUT_REPLIES_SHARE:.0%}",
        "Replies that were not finished, so that ending one is never learned.",
        "raise max_new_tokens, or ask for shorter replies in the system prompt",
        HealthStatus.WARNING,
        cut_replies,
    ),
    Signal(
        "Length against reward",
        ("sampled_tokens", "step_episodes", "reward_mean"),
        f"the last third of the steps (at least {FEWEST_IN_A_WINDOW}) is longer than the first by {LONGER - 1:.0%} and "
        "more than by chance, and the reward did not rise",
        "Conversations that grow without earning more are what a biased loss or a loose reward looks like.",
        "take loss_normalization constant or token, set overlong_penalty, or let the reward look at length",
        HealthStatus.WARNING,
        length,
    ),
    Signal(
        "Repetition",
        ("repeated_ngrams",),
        f"more than {REPEATED_SHARE:.0%} at the end",
        "Share of the 4-grams of a reply that stood in it before: loops, and words that a reward counts.",
        "read the conversations, and let the reward look at repetition, raise beta, or lower the learning rate",
        HealthStatus.WARNING,
        repetition,
    ),
)
