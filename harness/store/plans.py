"""Plans among the results: one file a plan, however many cells ran it."""

from __future__ import annotations

from harness.store import layout
from harness.store.place import Keeps
from samplers.core import plan_json
from samplers.core.levels import NoiseLevels
from samplers.core.plan import Plan


def keep(plan: Plan, levels: NoiseLevels, keeps: Keeps) -> str:
    """Put the plan there, where it is not yet; its id, by which it is found (`layout.plan`)."""
    text = plan_json.dumps(plan, levels)
    plan_id = plan_json.identity(text)
    if not keeps.exists(layout.plan(plan_id)):
        keeps.put(layout.plan(plan_id), text.encode())
    return plan_id
