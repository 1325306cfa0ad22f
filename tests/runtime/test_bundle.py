"""Bundles: what loads, how it is addressed, and what each mistake is told."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import cedarpy
import pytest

from runtime.bundle import Bundle, bundle_from_files, load_bundle
from runtime.canonical import sha256
from runtime.errors import (
    BundleError,
    ContextSpecError,
    LimitsError,
    PolicyError,
    PolicySchemaError,
    PolicySyntaxError,
)
from runtime.policy_files import parse_uids, statements
from runtime.trace import POLICIES

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = """\
entity Agent in [Role];
entity Role;
entity Account { owner?: String };
action pay, read appliesTo {
  principal: [Agent], resource: [Account],
  context: { args: { amount: decimal }, payee?: { trusted: Bool } }
};
"""
POLICIES_TEXT = r"""// a comment; with "quotes
@id("permit all") permit (principal, action, resource);

@id("ask") @verdict("approve") @approvers("Role::\"fin\", Role::\"b,\\\"c\"")
forbid (principal, action == Action::"pay", resource)
when { context has payee && !context.payee.trusted }; // to the ;
@id("cap")
@verdict("modify") @patch("{\"amount\": {\"$ref\": \"context.args.amount\"}, \"note\": [1, {\"a\": null}]}")
@mine("x;y") @bare
forbid (principal, action == Action::"pay", resource) when { context.args.amount.greaterThan(decimal("10.0")) };
@id("never") forbid (principal in ?principal, action, resource is Account in ?resource);
"""
LINKS = r"""[
  {"template": "never", "id": "never-x", "values": {"?principal": "Agent::\"x\"", "?resource": "Account::\"a\""}},
  {"template": "never", "id": "never-r", "values": {"?principal": "Role::\"r\"", "?resource": "Account::\"\\u{e9}\""}}
]"""
FILES = {"sub/pay.cedar": POLICIES_TEXT, "schema.cedarschema": SCHEMA, "links.json": LINKS}
OK = '@id("ok")\npermit (principal, action, resource);\n'


def bundle(**changes: str | None) -> Bundle:
    """A bundle of FILES with files added, changed or (None) removed; `__` in a name stands for a dot."""
    files: dict[str, str | None] = {
        **FILES,
        **{name.replace("__", "."): text for name, text in changes.items()},
    }
    return bundle_from_files({name: text for name, text in files.items() if text is not None}, "b")


def ask(
    policies: cedarpy.PolicySet,
    loaded: Bundle,
    principal: str = "y",
    resource: str = "a",
    amount: str = "5.0",
) -> cedarpy.AuthzResult:
    context = {
        "args": {"amount": {"__extn": {"fn": "decimal", "arg": amount}}},
        "now": {"__extn": {"fn": "datetime", "arg": "2026-11-22"}},
        "scopes": [],
        "tenant": "t",
        "session": {"calls": 0},
    }
    request = {
        "principal": {"type": "Agent", "id": principal},
        "action": 'Action::"pay"',
        "resource": {"type": "Account", "id": resource},
        "context": json.dumps(context),
    }
    return cedarpy.is_authorized(request, policies, "[]", loaded.cedar_schema)


def test_policies_by_id_with_what_their_annotations_say() -> None:
    loaded = bundle()
    assert list(loaded.policies) == ["permit all", "ask", "cap", "never-x", "never-r"]
    ask_policy, cap = loaded.policies["ask"], loaded.policies["cap"]
    assert (ask_policy.effect, ask_policy.verdict, ask_policy.patch) == ("forbid", "approve", None)
    assert ask_policy.approvers == ('Role::"fin"', 'Role::"b,\\"c"')
    assert (ask_policy.file, ask_policy.line) == ("sub/pay.cedar", 4)
    assert ask_policy.text.startswith('@id("ask")')
    assert ask_policy.text.endswith("trusted };")
    assert cap.patch == {"amount": {"$ref": "context.args.amount"}, "note": [1, {"a": None}]}
    assert (cap.verdict, cap.line, cap.template) == ("modify", 7, False)
    assert cap.annotations["mine"] == "x;y"
    assert cap.annotations["bare"] == ""
    linked = loaded.policies["never-x"]
    assert (linked.template, linked.line, linked.verdict) == (True, 11, "plain")


def test_reasons_carry_ids() -> None:
    loaded = bundle()
    assert ask(loaded.policy_set, loaded).diagnostics.reasons == ["permit all"]
    assert sorted(ask(loaded.policy_set, loaded, amount="11.0").diagnostics.reasons) == ["cap"]
    both = ask(loaded.policy_set, loaded, principal="x", amount="11.0")
    assert sorted(both.diagnostics.reasons) == ["cap", "never-x"]


def test_the_permits_alone_and_the_set_without_some() -> None:
    loaded = bundle()
    assert len(loaded.policy_set) == 5
    assert len(loaded.permit_set) == 1
    assert ask(loaded.permit_set, loaded, principal="x", amount="11.0").allowed
    lifted = loaded.without(frozenset({"cap"}))
    assert ask(lifted, loaded, amount="11.0").allowed
    assert not ask(lifted, loaded, principal="x", amount="11.0").allowed
    assert ask(loaded.without(frozenset({"cap", "never-x"})), loaded, principal="x", amount="11.0").allowed
    assert loaded.without(frozenset({"cap"})) is lifted
    with pytest.raises(KeyError, match="nope"):
        loaded.without(frozenset({"nope"}))


def test_policies_see_the_standard_context() -> None:
    text = (
        OK
        + '@id("s") forbid (principal, action, resource) when { context.session.calls > 3 || context has approval };'
    )
    assert "s" in bundle(**{"sub/pay.cedar": text, "links.json": None}).policies


def test_a_folder_and_its_texts_are_one_version(tmp_path: Path) -> None:
    for name, text in {**FILES, "notes.txt": "\xff", "sub/links.json": "no bundle file"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        crlf = "\N{ZERO WIDTH NO-BREAK SPACE}" + text.replace("\n", "\r\n")
        (tmp_path / name).write_bytes(crlf.encode("latin-1" if name == "notes.txt" else "utf-8", "ignore"))
    loaded = load_bundle(tmp_path)
    assert loaded.name == tmp_path.name
    assert dict(loaded.files) == FILES
    assert list(loaded.files) == sorted(FILES)
    assert loaded.version == bundle().version
    assert load_bundle(str(tmp_path)).version == loaded.version


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"sub/pay.cedar": POLICIES_TEXT + "// more"}, "policy_hash"),
        ({"schema.cedarschema": SCHEMA + "// more"}, "policy_hash"),
        ({"links.json": LINKS + " "}, "policy_hash"),
        ({"other.cedar": ""}, "policy_hash"),
        ({"context.toml": "version = 1"}, "context_spec_hash"),
        ({"limits.toml": "version = 1"}, "limits_hash"),
    ],
)
def test_each_hash_covers_its_files_and_the_version_covers_all(changes: dict[str, str], changed: str) -> None:
    one, two = bundle(), bundle(**changes)
    names = ("policy_hash", "context_spec_hash", "limits_hash")
    assert [name for name in names if getattr(one, name) != getattr(two, name)] == [changed]
    assert one.version != two.version


def test_the_name_and_other_files_are_no_part_of_the_version() -> None:
    other = bundle_from_files({**FILES, "README.md": "x"}, "another")
    assert other.version == bundle().version
    assert "README.md" not in other.files


def test_absent_context_and_limits_are_empty_texts() -> None:
    loaded = bundle()
    assert loaded.context_spec_hash == loaded.limits_hash == sha256("")
    assert bundle(context__toml="", limits__toml="").version == loaded.version


def test_rows_rebuild_the_bundle() -> None:
    loaded = bundle(limits__toml="version = 1\n")
    rows = loaded.row_dicts()
    assert all(set(row) == {column.name for column in POLICIES.columns} for row in rows)
    assert len({row["row_hash"] for row in rows}) == len(rows) == 4
    files: dict[str, Any] = {str(row["file"]): row["text"] for row in rows}
    assert bundle_from_files(files, "from the lake").version == loaded.version


def test_a_bundle_may_be_shared_by_threads() -> None:
    loaded = bundle()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(loaded.policy_set))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5] * 8


def test_the_repr_is_short() -> None:
    loaded = bundle()
    assert repr(loaded) == f"<Bundle b {loaded.version[:12]}: 5 policies>"


LINK_MISTAKES: dict[str, tuple[str, int, str | None, str]] = {
    "no JSON": ("[\n{", 2, None, "not valid JSON"),
    "no list": ("{}", 1, None, "must be a list of links"),
    "no link": ("[\n1]", 2, None, "`template`, `id` and `values`"),
    "another key": (LINKS.replace('"id"', '"ident"', 1), 2, None, "nothing else"),
    "number as id": (LINKS.replace('"never-r"', "5"), 3, None, "must be strings"),
    "unknown template": (
        LINKS.replace('"template": "never"', '"template": "nvr"', 1),
        2,
        "never-x",
        "there are: `never`",
    ),
    "static policy as template": (
        LINKS.replace('"template": "never"', '"template": "cap"', 1),
        2,
        "never-x",
        "there are: `never`",
    ),
    "id of a policy": (LINKS.replace("never-r", "ask"), 3, "ask", "taken by the policy at sub/pay.cedar:4"),
    "id of the template": (
        LINKS.replace("never-r", "never"),
        3,
        "never",
        "taken by the policy at sub/pay.cedar:11",
    ),
    "id given twice": (LINKS.replace("never-r", "never-x"), 3, "never-x", "first on line 2"),
    "slot missing": (
        LINKS.replace('"?principal": "Role::\\"r\\"", ', ""),
        3,
        "never-r",
        "has the slots `?principal`, `?re",
    ),
    "slot unknown": (
        LINKS.replace('"?principal": "Role', '"?who": "Role'),
        3,
        "never-r",
        "the link fills `?resource`, `?w",
    ),
    "value no uid": (LINKS.replace('Role::\\"r\\"', "Role::r"), 3, "never-r", "'Role::r' is no entity uid"),
    "value no text": (LINKS.replace('"Role::\\"r\\""', "5"), 3, "never-r", "'5' is no entity uid"),
}


@pytest.mark.parametrize("name", LINK_MISTAKES)
def test_a_mistake_in_links_is_told_with_line_and_way_out(name: str) -> None:
    text, line, policy, hint = LINK_MISTAKES[name]
    with pytest.raises(PolicyError) as caught:
        bundle(**{"links.json": text})
    assert (caught.value.file, caught.value.line, caught.value.policy) == ("links.json", line, policy)
    assert hint in str(caught.value)


def test_a_link_that_does_not_validate_is_told() -> None:
    with pytest.raises(PolicySchemaError, match=r"^links\.json:3: policy `never-r`: .*`Rle`"):
        bundle(**{"links.json": LINKS.replace("Role::", "Rle::")})


def test_a_missing_schema_is_told_with_an_example() -> None:
    with pytest.raises(PolicySchemaError, match=r"no `schema\.cedarschema`; declare .*action send_money"):
        bundle(schema__cedarschema=None)


def test_a_broken_schema_is_told_with_its_line() -> None:
    with pytest.raises(PolicySchemaError, match=r"^schema\.cedarschema:9: .*unexpected token `z`"):
        bundle(schema__cedarschema=SCHEMA + "entity X {\n  y: Long z };")


def test_no_policies_is_an_error() -> None:
    with pytest.raises(PolicyError, match="nothing would ever be allowed; write a permit"):
        bundle_from_files({"p.cedar": "// none;", "schema.cedarschema": SCHEMA}, "b")
    with pytest.raises(PolicyError, match=r"nothing until linked; link them in `links\.json`"):
        bundle_from_files(
            {
                "p.cedar": '@id("t") permit (principal == ?principal, action, resource);',
                "schema.cedarschema": SCHEMA,
            },
            "b",
        )


def test_errors_of_context_and_limits_pass_through() -> None:
    with pytest.raises(ContextSpecError) as spec:
        bundle(context__toml="version = 2")
    assert spec.value.file == "context.toml"
    source = 'version = 1\n[sources.s]\nkind = "callable"\n'
    fact = '[[facts]]\nname = "f"\nactions = ["*"]\nsource = "s"\nshared = true\n'
    with pytest.raises(ContextSpecError, match="f") as placed:
        bundle(context__toml=source + fact + 'key = { a = "tenant" }\nfields = ["x"]\n')
    assert placed.value.file == "context.toml"
    with pytest.raises(LimitsError, match=r"^limits\.toml"):
        bundle(limits__toml="budgets = 1")


def test_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nope.*a bundle is a folder with `\*\.cedar` files"):
        load_bundle(tmp_path / "nope")
    (tmp_path / "p.cedar").write_text(OK)
    with pytest.raises(BundleError, match="a bundle is a folder"):
        load_bundle(tmp_path / "p.cedar")


def test_not_utf_8_is_told_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "schema.cedarschema").write_text(SCHEMA)
    (tmp_path / "p.cedar").write_bytes(OK.encode() + b"// caf\xe9")
    with pytest.raises(BundleError, match=r"^p\.cedar:3: not UTF-8: byte 0xe9; save the file as UTF-8"):
        load_bundle(tmp_path)


def test_statements_are_cut_where_cedar_cuts_them() -> None:
    text = (
        '// ";\n@id("a;\\"b") permit (principal, action, resource) when { "//;" == ";" };// x\n\n'
        + OK
        + "// end"
    )
    found = statements(text, "f")
    assert [(s.line, s.annotations["id"]) for s in found] == [(2, 'a;"b'), (4, "ok")]
    assert len(cedarpy.PolicySet.from_str(text)) == 2


def test_published_policies_are_cut_where_cedar_cuts_them(shared_data: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(
        shared_data / "policies" / "policies.parquet", columns=["language", "text"]
    ).to_pylist()
    texts = {row["text"] for row in rows if row["language"] == "cedar"}
    for file in sorted((shared_data / "cedar_cases").glob("cedar_*.parquet")):
        texts |= set(parquet.read_table(file, columns=["policies"])["policies"].to_pylist())
    counted = 0
    for text in texts:
        try:
            whole = json.loads(cedarpy.policies_to_json_str(text))
        except ValueError:
            with pytest.raises(PolicySyntaxError):
                statements(text, "f")
        else:
            found = statements(text, "f")
            assert {json.dumps(s.json) for s in found} == {
                json.dumps(body) for kind in ("staticPolicies", "templates") for body in whole[kind].values()
            }
            counted += len(found)
    assert counted > 500


def test_uids_are_read_with_cedars_escapes() -> None:
    found = parse_uids(' A::"x,y" ,B::C::"\\u{e9}\\"" ')
    assert [(uid.type, uid.id) for uid in found] == [("A", "x,y"), ("B::C", 'é"')]
    for text in ("", "A", "A::x", 'A::"x"B::"y"', 'A::"x",,B::"y"', '::"x"'):
        with pytest.raises(ValueError, match="no entity uid"):
            parse_uids(text)


def test_a_chain_of_any_length_can_be_decided() -> None:
    for op in ("||", "&&"):
        condition = f" {op} ".join(f"context.args.n == {number}" for number in range(400))
        schema = "entity U; entity D; action a appliesTo {principal: [U], resource: [D], context: {args: {n: Long}}};"
        policy = f'@id("long") permit (principal, action, resource) when {{ {condition} }};'
        bundle = bundle_from_files({"schema.cedarschema": schema, "long.cedar": policy}, "long")
        case = {
            "principal": 'U::"u"', "action": 'Action::"a"', "resource": 'D::"d"',
            "context": {"args": {"n": 399}},
        }  # fmt: skip
        found = cedarpy.is_authorized(case, bundle.policy_set, "[]")
        assert found.allowed == (op == "||")
