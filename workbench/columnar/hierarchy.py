"""`in`: an entity below another, below a computed one, or below one of a set.

One rule: an entity is in itself, whether or not it is in the store; it is in another if the decision's own entities
say so. A set on the right must hold nothing but entities, and that is checked before the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.columnar.canon import canon, prefix_of
from workbench.columnar.nodes import FALSE, Node, and_, apply, equal, is_constant, not_, or_, value_of
from workbench.columnar.values import (
    Data,
    EntityData,
    ListedData,
    MembersData,
    Pair,
    TextsData,
    Value,
    is_set,
    scalar,
    split,
    total,
)

if TYPE_CHECKING:
    from workbench.columnar.world import World


def within(left: Pair, right: Pair, world: World) -> Pair:
    """`left in right`."""
    entities = split(left, lambda data: isinstance(data, EntityData))
    targets = split(right, lambda data: isinstance(data, EntityData) or is_set(data))
    errors = [entities.error, targets.error]
    found = []
    for target in targets.value:
        errors.append(and_(target.guard, _not_entities(target.data)))
        for entity in entities.value:
            assert isinstance(entity.data, EntityData)  # noqa: S101 - asked for
            found.append(and_(entity.guard, target.guard, _within(entity.data, target.data, world)))
    return scalar("bool", or_(*found), or_(*errors))


def _within(entity: EntityData, target: Data, world: World) -> Node:
    match target:
        case EntityData():
            return in_entity(entity, target, world)
        case MembersData(members):
            return or_(*(_in_value(entity, member, world) for member in members))
        case ListedData(kind, node) if kind.startswith("entity "):
            return _in_listed(entity, kind.removeprefix("entity "), node, world)
        case TextsData(node):
            return _in_texts(entity, node, world)
        case _:
            return FALSE


def _in_value(entity: EntityData, value: Value, world: World) -> Node:
    return or_(
        *(
            and_(each.guard, in_entity(entity, each.data, world))
            for each in value
            if isinstance(each.data, EntityData)
        )
    )


def in_entity(entity: EntityData, target: EntityData, world: World) -> Node:
    """Whether an entity is another, or below it."""
    itself = equal(entity.uid, target.uid) if entity.type == target.type else FALSE
    if target.type not in world.above(entity):
        return itself
    if is_constant(target.uid):
        return or_(itself, world.is_below(entity, target.type, value_of(target.uid)))
    return or_(itself, apply("is_member", world.codes_above(entity, target.type), target.uid))


def _in_listed(entity: EntityData, kind: str, codes: Node, world: World) -> Node:
    itself = apply("is_member", codes, entity.uid) if entity.type == kind else FALSE
    if kind not in world.above(entity):
        return itself
    return or_(itself, apply("overlaps", world.codes_above(entity, kind), codes))


def _in_texts(entity: EntityData, texts: Node, world: World) -> Node:
    above = (
        apply(
            "overlaps",
            texts,
            apply("texts_of", world.codes_above(entity, kind), param=prefix_of(f"entity {kind}")),
        )
        for kind in world.above(entity)
    )
    return or_(apply("is_member", texts, canon(total(entity))), *above)


def _not_entities(target: Data) -> Node:
    """Where a right-hand side holds something else than entities."""
    match target:
        case MembersData(members):
            return or_(*(each.guard for m in members for each in m if not isinstance(each.data, EntityData)))
        case ListedData(kind, node) if not kind.startswith("entity "):
            return not_(apply("is_empty", node))
        case TextsData(node):
            return not_(apply("all_start", node, param="e"))
        case _:
            return FALSE
