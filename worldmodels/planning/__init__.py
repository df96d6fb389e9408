"""Plans: the tasks of a command, the questions that store and settings answer about each, and what there is to make."""

from .planner import PlannedStage, check, due, execute, lock, plan, refuse, store_config, stored_config
from .tasks import Task, TaskState, belong_together, by_digest, find, misunderstood, renew_command

__all__ = [
    "PlannedStage", "Task", "TaskState", "belong_together", "by_digest", "check", "due", "execute", "find", "lock",
    "misunderstood", "plan", "refuse", "renew_command", "store_config", "stored_config",
]  # fmt: skip
