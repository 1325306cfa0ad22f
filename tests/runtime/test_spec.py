"""`context.toml`: what it means, and that every mistake is refused with its line and the way out."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BundleError, ContextSpecError
from runtime.schema import CedarSchema, parse_schema, with_standard_context
from runtime.spec import ContextSpec, check_spec, parse_spec
from runtime.toml import TomlLines

FULL = """\
version = 1

[sources.directory]
kind = "delta"
uri = "facts/directory"

[sources.erp]
kind = "sql"
table = "shop.orders"

[sources.calendar]
kind = "callable"

[[facts]]
name = "payee"
actions = ["send_money", "schedule"]
source = "directory"
key = { tenant_id = "tenant", iban = "args.recipient" }
fields = ["name", "trusted"]
tenant_column = "tenant_id"
max_age = "24h"
age_column = "updated_at"
on_stale = "flag"

[[facts]]
name = "order"
actions = ["refund"]
source = "erp"
fields = ["total"]
into = "resource"
parents = { teams = "Team" }
tenant_column = "tenant"
  [facts.key]
  id = "resource.id"

[[facts]]
name = "free_days"
actions = ["*"]
source = "calendar"
fields = ["day"]
shape = "set"
shared = true
"""

SCHEMA = """
entity Team;
entity Agent;
entity Order in [Team] { total?: decimal, cents?: Long, must: Long };
entity Account;
action write;
action send_money in [write] appliesTo {
  principal: [Agent], resource: [Account],
  context: {
    args: { recipient: String, to?: { iban: String }, @scaled("amount*100") cents?: Long },
    payee?: { name: String, trusted?: Bool },
    late: { name: String },
    codes?: Set<String>, people?: Set<{ name: String, age?: Long }>, flag?: Bool, free_days?: Set<String>,
    @scaled("x*100") bill?: { @scaled("total*100") total_cents: Long }
  }
};
action refund appliesTo { principal: [Agent], resource: [Order], context: {
  args: { id: String }, free_days?: Set<String>
} };
"""


@pytest.fixture(scope="module")
def schema() -> CedarSchema:
    return with_standard_context(parse_schema(SCHEMA.replace('@scaled("x*100") bill', "bill")))


def fact(**changes: str | None) -> str:
    """Return a spec of one good fact with some lines changed, or left out where None."""
    lines: dict[str, str | None] = {
        "name": '"payee"',
        "actions": '["send_money"]',
        "source": '"directory"',
        "key": '{ iban = "args.recipient" }',
        "fields": '["name"]',
        "tenant_column": '"tenant_id"',
    }
    body = "\n".join(f"{key} = {value}" for key, value in (lines | changes).items() if value is not None)
    return f'[sources.directory]\nkind = "delta"\n[[facts]]\n{body}\n'


def test_a_full_spec_means_what_it_says() -> None:
    spec = parse_spec(FULL)
    assert {name: (s.kind, s.uri, s.table) for name, s in spec.sources.items()} == {
        "directory": ("delta", "facts/directory", None),
        "erp": ("sql", None, "shop.orders"),
        "calendar": ("callable", None, None),
    }
    payee, order, days = spec.facts
    assert (payee.shape, payee.into, payee.max_age_us, payee.on_stale) == (
        "record",
        "context",
        86_400_000_000,
        "flag",
    )
    assert payee.columns == ("name", "trusted", "updated_at", "tenant_id")
    assert dict(payee.paths) == {"tenant_id": ("tenant",), "iban": ("args", "recipient")}
    assert (order.into, order.parents, order.columns) == (
        "resource",
        {"teams": "Team"},
        ("total", "teams", "tenant"),
    )
    assert dict(order.paths) == {"id": ("resource", "id"), "tenant": ("tenant",)}
    assert (days.shape, days.tenant_column, days.max_age_us, days.on_stale) == ("set", None, None, "block")
    assert days.paths == ()


def test_which_facts_a_tool_asks_for() -> None:
    spec = parse_spec(FULL)
    assert [f.name for f in spec.asked("send_money")] == ["payee", "free_days"]
    assert spec.not_asked("send_money") == ("order",)
    assert [f.name for f in spec.asked("never_heard_of")] == ["free_days"]


def test_the_tenant_column_is_the_tenants_whatever_the_key_says() -> None:
    spec = parse_spec(fact(key='{ tenant_id = "args.recipient" }'))
    assert spec.facts[0].paths == (("tenant_id", ("tenant",)),)


def test_nothing_declares_nothing() -> None:
    assert parse_spec("") == ContextSpec()
    assert parse_spec("# a comment\n").facts == ()


def test_the_hash_is_of_the_text_with_unix_line_ends() -> None:
    spec = parse_spec(FULL)
    assert spec.hash == hashlib.sha256(FULL.encode()).hexdigest()
    assert parse_spec(FULL.replace("\n", "\r\n")).hash == spec.hash
    assert parse_spec(FULL + "# more\n").hash != spec.hash


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("24h", 86_400_000_000),
        ("1d12h", 129_600_000_000),
        ("90s", 90_000_000),
        ("5m", 300_000_000),
        ("5ms", 5_000),
    ],
)
def test_ages(text: str, micros: int) -> None:
    assert parse_spec(fact(max_age=f'"{text}"')).facts[0].max_age_us == micros


BAD: list[tuple[str, str, int | None, str]] = [
    ("not toml", "version = 1\n[sources", 2, "not valid TOML"),
    ("other version", "version = 2", 1, "`version` must be 1, got 2"),
    ("unknown top-level key", 'source = "x"', 1, "unknown key `source`, did you mean `sources`?"),
    ("facts as one table", "[facts]\nname = 'x'", 1, "write each fact as `[[facts]]`"),
    ("source as a string", "[sources]\ndirectory = 'x'", 1, "write each source as `[sources.<name>]`"),
    ("source key", "[sources.a]\nkind = 'delta'\nurl = 'x'", 3, "source `a`: unknown key `url`, did you mean `uri`?"),
    ("source kind", "[sources.a]\nkind = 'csv'", 2, "`kind` must be delta, sql or callable, got 'csv'"),
    ("no kind", "[sources.a]\nuri = 'x'", 1, "`kind` must be delta, sql or callable, it is missing"),
    ("sql without table", "[sources.a]\nkind = 'sql'", 1, "needs `table = "),
    ("delta with table", "[sources.a]\nkind = 'delta'\ntable = 't'", 3, "`table` is for `sql` sources"),
    ("callable with uri", "[sources.a]\nkind = 'callable'\nuri = 'x'", 3, "bind the function when the runtime"),
    ("uri no string", "[sources.a]\nkind = 'delta'\nuri = 5", 3, "`uri` must be a string, got 5"),
    ("fact key", fact(feilds='["name"]'), 10, "fact 1: unknown key `feilds`, did you mean `fields`?"),
    ("far-off key", fact(zzz="1"), 10, "unknown key `zzz`; known are actions, age_column"),
    ("no name", fact(name=None), 3, 'fact 1: needs `name = "…"`'),
    ("name no identifier", fact(name='"a-b"'), 4, "must be an identifier that is free in `context`, got 'a-b'"),
    *[(f"reserved {n}", fact(name=f'"{n}"'), 4, f"'{n}' is taken by the runtime")
      for n in ("args", "now", "scopes", "tenant", "session", "on_behalf_of", "approval")],
    ("name twice", fact() + fact().partition('delta"\n')[2], 11, "fact `payee` is declared twice; rename one"),
    ("unknown source", fact(source='"directry"'), 6, "unknown source `directry`, did you mean `directory`?"),
    ("source elsewhere", fact(source='"crm"'), 6, "unknown source `crm`; declare it as `[sources.crm]`"),
    ("no source", fact(source=None), 3, 'needs `source = "…"`'),
    ("no actions", fact(actions=None), 3, '`actions` must be tool names, or ["*"] alone, got []'),
    ("star and more", fact(actions='["*", "x"]'), 5, '["*"] alone'),
    ("actions no list", fact(actions='"send_money"'), 5, "`actions` must be a list of strings, got 'send_money'"),
    ("action twice", fact(actions='["a", "a"]'), 5, "`actions` names 'a' twice"),
    ("key no table", fact(key='"args.x"'), 7, "`key` must be a table of strings"),
    ("key path", fact(key='{ iban = "recipient" }'), 7, "key `iban` must be a path in the request, got 'recipient'"),
    ("key path close", fact(key='{ a = "principle.id" }'), 7, "did you mean `principal.id`?"),
    ("key path empty part", fact(key='{ a = "args." }'), 7, "got 'args.'"),
    ("key path bare args", fact(key='{ a = "args" }'), 7, "got 'args'"),
    ("no fields", fact(fields=None), 3, "needs `fields"),
    ("fields no strings", fact(fields="[1]"), 8, "`fields` must be a list of strings, got [1]"),
    ("shape", fact(shape='"list"'), 10, "`shape` must be record or set, got 'list'"),
    ("into", fact(into='"user"'), 10, "`into` must be context, resource or principal, got 'user'"),
    ("set into entity", fact(into='"resource"', shape='"set"'), 11, "a set cannot be placed into 'resource'"),
    ("parents in context", fact(parents='{ roles = "Role" }'), 10, '`parents` needs `into = "resource"`'),
    ("parent no type", fact(into='"principal"', parents='{ roles = "Role::" }'), 11, "must name an entity type"),
    ("no tenant", fact(tenant_column=None), 3, "needs `tenant_column"),
    ("tenant and shared", fact(shared="true"), 10, "exclude each other"),
    ("shared no bool", fact(tenant_column=None, shared='"yes"'), 9, "`shared` must be true or false, got 'yes'"),
    ("age", fact(max_age='"one day"'), 10, 'such as "24h", "90s" or "1d12h", got \'one day\''),
    ("age of nothing", fact(max_age='""'), 10, "`max_age` must be a string, got ''"),
    ("age zero", fact(max_age='"0s"'), 10, "must be a duration"),
    ("stale without age", fact(on_stale='"flag"'), 10, "`on_stale` needs `max_age`"),
    ("stale how", fact(max_age='"1h"', on_stale='"ignore"'), 11, "`on_stale` must be block or flag, got 'ignore'"),
    ("sql has no age", ("[sources.a]\nkind = 'sql'\ntable = 't'\n[[facts]]\nname = 'x'\nsource = 'a'\n"
     "actions = ['*']\nfields = ['y']\nshared = true\nmax_age = '1h'"), 10,
     "`max_age` needs `age_column`: a 'sql' source"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_a_mistake_names_file_line_and_way_out(text: str, line: int, message: str) -> None:
    with pytest.raises(ContextSpecError) as caught:
        parse_spec(text, "bundle/context.toml")
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == ("bundle/context.toml", line)
    assert str(caught.value).startswith(f"bundle/context.toml:{line}: ")
    assert isinstance(caught.value, BundleError)


def test_two_facts_may_not_set_one_attribute_in_one_action() -> None:
    one = fact(into='"resource"')
    two = fact(name='"other"', into='"resource"').partition('delta"\n')[2]
    with pytest.raises(
        ContextSpecError, match="attribute `name` of the resource is also set by fact `payee`"
    ) as caught:
        parse_spec(one + two)
    assert caught.value.line == 16
    assert len(parse_spec(one + two.replace("send_money", "refund")).facts) == 2
    assert len(parse_spec(one + two.replace('"resource"', '"principal"')).facts) == 2


@pytest.mark.parametrize(
    "spec",
    [
        fact(),
        fact(fields='["name", "trusted"]'),
        fact(key='{ iban = "args.to.iban" }'),
        fact(key='{ iban = "args.amount" }'),
        fact(name='"codes"', shape='"set"'),
        fact(name='"people"', shape='"set"', fields='["name", "age"]'),
        fact(name='"bill"', fields='["total"]'),
        fact(name='"order"', actions='["refund"]', key='{ id = "args.id" }', fields='["total"]', into='"resource"'),
        fact(actions='["refund"]', key="{}", fields=None, into='"resource"', parents='{ t = "Team" }'),
        # With `*`, one action that has the argument is enough: the others get none.
        fact(name='"free_days"', actions='["*"]', shape='"set"'),
    ],
)  # fmt: skip
def test_what_fits_the_schema(spec: str, schema: CedarSchema) -> None:
    check_spec(parse_spec(spec), schema)


MISFITS: list[tuple[str, int, str]] = [
    (fact(actions='["send_mony"]'), 5, "action 'send_mony' is not declared in the schema, did you mean"),
    (fact(actions='["xyz"]'), 5, "; declared are refund, send_money"),
    (fact(actions='["write"]'), 5, "action 'write' is a group that applies to nothing; name its actions"),
    (fact(name='"payer"'), 4, "declares no `payer` in the context of action 'send_money'; add `payer?: …`"),
    (fact(actions='["*"]'), 4, "declares no `payee` in the context of action 'refund'"),
    (fact(name='"late"'), 4, "must be optional, as a fact may be none; write `late?: …`"),
    (fact(fields='["nam"]'), 8, "declares no member `nam`, did you mean `name`?"),
    (fact(fields='["trusted"]'), 8, "requires `name`; add 'name' to `fields`, or declare `name?`"),
    (fact(name='"bill"', fields='["total_cents"]'), 8, "declares no member `total_cents`"),
    (fact(name='"flag"'), 3, "a record cannot fill `flag` in the context of action 'send_money', declared as"),
    (fact(name='"flag"', shape='"set"'), 10, "a set cannot fill `flag`"),
    (fact(shape='"set"'), 10, "a set cannot fill `payee`"),
    (fact(name='"codes"', shape='"set"', fields='["a", "b"]'), 10, "records cannot fill `codes`"),
    (fact(name='"people"', shape='"set"', fields='["name", "agee"]'), 8, "declares no member `agee`"),
    (fact(key='{ iban = "args.recipiant" }'), 7, "no argument `recipiant` in `args`, did you mean `recipient`?"),
    (fact(key='{ iban = "args.cents" }'), 7, "declares no argument `cents`"),
    (fact(name='"free_days"', actions='["*"]', shape='"set"', key='{ a = "args.zz" }'), 7, "no argument `zz`"),
    (fact(actions='["refund"]', key="{}", into='"resource"'), 8, "entity type `Order` declares no attribute `name`"),
    (fact(actions='["refund"]', key="{}", into='"resource"', fields='["must"]'), 8, "`must` of entity type `Order`"),
    (fact(actions='["refund"]', key="{}", into='"principal"', fields='["total"]'), 8, "type `Agent` declares no"),
    (fact(actions='["refund"]', key="{}", into='"resource"', fields=None, parents='{ t = "Account" }'), 10,
     "may not be in 'Account'; declare `entity Order in [Account]`"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message"), MISFITS)
def test_what_does_not_fit_the_schema(text: str, line: int, message: str, schema: CedarSchema) -> None:
    with pytest.raises(ContextSpecError) as caught:
        check_spec(parse_spec(text), schema, "context.toml")
    assert message in str(caught.value)
    assert caught.value.file == "context.toml"
    assert caught.value.line == line


def test_lines_are_not_fooled_by_multi_line_strings() -> None:
    lines = TomlLines(
        'a = """\n[[facts]]\nname = 1\n"""\n[[facts]]\nname = "x" # [[facts]]\n["sources" . \'b\']\nk = 1\n'
    )
    assert lines.at("facts", 0) == 5
    assert lines.at("facts", 0, "name") == 6
    assert lines.at("facts", 1, "name") is None
    assert lines.at("sources.b", 0, "k") == 8
    assert lines.at("sources.b", 0, "gone") == 7


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_spec(text)
    except ContextSpecError as exc:
        refused = exc
    else:
        return
    assert refused.file == "context.toml"


KEYS = st.sampled_from(["name", "actions", "source", "key", "fields", "shape", "into", "shared", "max_age"])
VALUES = st.sampled_from(['"x"', "[]", "{}", "1", "true", '["a"]', '{ a = "b" }', '[["a"]]', "1.5"])


@given(st.lists(st.tuples(KEYS, VALUES)))
def test_any_value_is_read_or_refused(changes: list[tuple[str, str]]) -> None:
    try:
        parse_spec(fact(**dict(changes)))
    except ContextSpecError as exc:
        refused = exc
    else:
        return
    assert refused.line is not None
