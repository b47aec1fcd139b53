"""The course's side of an exercise: `check` says whether yours is right, `hint` helps."""

from course.exercise import check, hint

__all__ = ["check", "hint"]
