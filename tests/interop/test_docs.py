"""The documents: links lead somewhere, commands exist, and the program accepts the configuration.

Each command is checked as far as it can be:

- `RUN`: it runs here, on loopback, in a temporary folder.
- `PARSED`: it does not run. Its own parser, or a model of its parser, accepts the words; files and names in it exist.
- `SYNTAX`: only the shell's syntax is checked.

A command that is in none of the lists fails the test. Find a way to check it, and add it to a list.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import textwrap
import time
import tomllib

import boto3
import botocore.session
import jsonschema
import pytest
import tomlkit
from botocore import xform_name
from conftest import AUDIT_SECRET, BIN, CI_SECRET, PATIENCE_S, PEERGATE, ROOT, SLACK_SECRET, Program, wait_for
from markdown_it import MarkdownIt

SHELL = {"sh", "bash", "console"}
# The tests of Terraform apply each block of `hcl`.
LANGUAGES = SHELL | {"toml", "json", "python", "text", "mermaid", "hcl", ""}
PRUNED = {".git", ".venv", ".aws-sam", ".pytest_cache", "__pycache__", "config", "dist", "target"}

# Each command: the program, and its subcommand if it has one.
RUN = {
    *(f"peergate {name}" for name in ["adopt", "demo", "backup", "doctor", "event", "export", "inventory", "list", "policy", "redrive", "register"]),
    *(f"peergate {name}" for name in ["restore", "schema", "serve", "show", "simulate", "table", "verify"]),
    *("echo", "openssl rand", "python3"),
}
PARSED = {
    *("aws cloudformation", "aws dynamodb", "aws iam", "aws lambda", "aws secretsmanager"),
    *("cargo build", "cargo lambda", "cargo test", "make", ".venv/bin/python"),
    *("terraform apply", "terraform init", "terraform workspace"),
    *("$EDITOR", "agentsplayground", "cd", "cp", "export", "mkdir", "peergate fake"),
}
SYNTAX = {"awk", "cargo insta", "cargo install", "cut", "gh attestation", "install", "openssl s_client", "openssl x509", "systemctl", "tr"}

WITH_SUBCOMMANDS = {"aws", "cargo", "gh", "openssl", "peergate", "terraform"}
SERVERS = ["simulate", "serve", "table", "fake", "watch"]


def documents():
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - PRUNED)
        yield from (pathlib.Path(folder) / name for name in sorted(names) if name.endswith(".md"))


def relative(path):
    return str(path.relative_to(ROOT))


class Document:
    def __init__(self, path):
        self.path, self.name = path, relative(path)
        self.text = path.read_text()
        self.slugs, self.links, self.code, self.fences = set(), [], [], []
        counted, tokens = {}, MarkdownIt("gfm-like", {"linkify": False}).parse(self.text)
        for before, token in zip([None, *tokens], tokens):
            if token.type == "fence":
                self.fences.append((token.info.strip(), token.content, token.map[0] + 1))
            elif token.type == "inline":
                self.links += [child.attrs["href"] for child in token.children if child.type == "link_open"]
                self.code += [child.content for child in token.children if child.type == "code_inline"]
                if before is not None and before.type == "heading_open":
                    title = "".join(child.content for child in token.children)
                    slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
                    again = counted[slug] = counted.get(slug, -1) + 1
                    self.slugs.add(f"{slug}-{again}" if again else slug)


DOCUMENTS = {document.name: document for document in map(Document, documents())}


def blocks(*languages):
    """A test parameter for each block of these languages. Its id is the place of the block."""
    found = [
        pytest.param(text, id=f"{document.name}:{line}")
        for document in DOCUMENTS.values()
        for language, text, line in document.fences
        if language in languages
    ]
    assert found
    return found


# Links.


def target_of(link, start):
    """Checks that the file of a link exists, and its anchor."""
    path, _, anchor = link.partition("#")
    file = (start.parent / path).resolve() if path else start
    assert file.is_relative_to(ROOT) and file.exists(), f"{link}: there is no {file}"
    assert not anchor or anchor in DOCUMENTS[relative(file)].slugs, f"{link}: there is no such heading"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name):
    for link in DOCUMENTS[name].links:
        if re.match(r"[a-z]+:", link):
            assert re.match(r"https://\w", link), link
        else:
            target_of(link, DOCUMENTS[name].path)


def test_the_readme_leads_to_every_page():
    reached, left = set(), ["README.md"]
    while left:
        document = DOCUMENTS[left.pop()]
        reached.add(document.name)
        links = [link.partition("#")[0] for link in document.links if not re.match(r"[a-z]+:", link)]
        found = {relative((document.path.parent / link).resolve()) for link in links if link.endswith(".md")}
        left += found - reached
    assert set(DOCUMENTS) - reached == {".github/pull_request_template.md"}


def test_pages_that_other_files_mention_are_there():
    """Pages that the code, the template, the configuration, the scripts and the documents mention in words."""
    files = ["Makefile", "template.yaml", "peergate.example.toml", "deploy/cost.py", "deploy/alicloud/main.tf", ".ci/run"]
    files += [relative(path) for path in (ROOT / ".github").rglob("*.yml")]
    files += [relative(path) for folder in ["src", "tests", "benches"] for path in (ROOT / folder).rglob("*.rs")]
    files += ["ARCHITECTURE.md", "BENCHMARKS.md", "CHANGELOG.md"]
    mentioned = 0
    for name in files:
        for link in re.findall(r"(?<![\w./:-])[\w.-][\w./-]*\.md\b(?:#[\w-]+)?", (ROOT / name).read_text()):
            if "NAME" not in link:
                target_of(link, ROOT / "README.md")
                mentioned += 1
    assert mentioned > 8


# A document that needs another host must have a reason.
KNOWN_HOSTS = {
    # The consoles and hosts that an operator enters are those of the platforms.
    "127.0.0.1", "api.slack.com", "hooks.slack.com", "insta.rs", "oapi.dingtalk.com", "open-dev.dingtalk.com", "open.feishu.cn",
    "semver.org", "slack.com",
    "sts.aliyuncs.com", "vpc.console.aliyun.com", "vpcpeer.aliyuncs.com", "www.alibabacloud.com", "www.standardwebhooks.com",
}  # fmt: skip


def test_documents_name_known_hosts_and_no_place_of_one_machine():
    for document in DOCUMENTS.values():
        hosts = set(re.findall(r"https?://([A-Za-z0-9.-]+)", document.text))
        hosts = {host for host in hosts if not host.endswith(".example.com")}
        assert hosts <= KNOWN_HOSTS, (document.name, hosts - KNOWN_HOSTS)
        for folder in ["/root/", "/home/", "/work/", "/tmp/"]:
            assert folder not in document.text, (document.name, folder)


# What documents say about the code.


def test_cards_and_commands_are_those_of_the_snapshots():
    snapshots = "\n".join(path.read_text() for path in sorted((ROOT / "tests/it/messages").glob("*.rs")))
    # The help says after a colon what a command is for.
    lines = {line.strip().split(": ")[0] for line in snapshots.splitlines()}
    cards = commands = 0
    for document in DOCUMENTS.values():
        for language, text, _ in document.fences:
            if language == "text" and "[Approve] [Reject]" in text:
                assert textwrap.indent(text.rstrip(), "    ") in snapshots, document.name
                cards += 1
            elif language == "text" and "because REASON" in text:
                assert {f"/peergate {line.removeprefix('/peergate ')}" for line in text.splitlines()} <= lines, document.name
                commands += 1
    assert (cards, commands) == (1, 2)


def test_every_answer_of_the_api_is_explained():
    """Each row is sent, too: tests/it/contract.rs."""
    files = [*sorted((ROOT / "src" / "chat").glob("*.rs")), ROOT / "src" / "webhook" / "rejection.rs"]
    outcomes = "".join(path.read_text() for path in files)
    named = set(re.findall(r'StatusCode::\w+, "([a-z-]+)"', outcomes))
    assert len(named) > 30
    page = DOCUMENTS["docs/http-api.md"].text
    told = {word for words in re.findall(r"^\| [\d, ]+ \| (`[^|]+) \|", page, re.M) for word in re.findall(r"`([a-z-]+)`", words)}
    # Outcomes of people's clicks, which only the log names.
    told |= set(re.findall(r"^\| `([a-z-]+)` \|", page.split("| outcome in the log |")[1], re.M)) - {"asked"}
    # No sender gets `rejecting`: until Alibaba Cloud acknowledges a rejection, the answer is `underway`.
    assert named - {"rejecting"} == told


def test_notifications_of_programs_are_those_that_there_are():
    messages = "".join(path.read_text() for path in (ROOT / "src" / "chat" / "message").glob("*.rs"))
    (arms,) = re.findall(r'match \w+ \{((?:[^{}]|\{ \.\. \})*"discovered"(?:[^{}]|\{ \.\. \})*)\}', messages)
    named = set(re.findall(r'=> "([a-z_]+)"', arms))
    table = re.findall(r"^\| (`peering\.[^|]+) \|", DOCUMENTS["docs/standard-webhooks.md"].text, re.M)
    told = {word for words in table for word in re.findall(r"`peering\.(\w+)`", words)}
    assert told and told == named


def test_every_key_and_variable_is_explained():
    example = (ROOT / "peergate.example.toml").read_text()
    # `netops` is the name of a group.
    keys = set(re.findall(r"^(?:# )?(\w+) = ", example, re.M)) - {"netops"}
    sources = [ROOT / "src" / "config.rs", *(ROOT / "src").glob("config/*.rs")]
    variables = set(re.findall(r'"(PEERGATE_\w+)"', "".join(path.read_text() for path in sources)))
    assert len(keys) > 35 and len(variables) >= 4
    pages = "".join(DOCUMENTS[f"docs/{name}.md"].text for name in ["configuration", "slack", "feishu", "dingtalk", "teams"])
    told = set(re.findall(r"`(?:platforms\.\w+\.)?(\w+)`", pages)) | set(re.findall(r"^(\w+) = ", pages, re.M))
    assert keys | variables <= told, (keys | variables) - told


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_are_there(name):
    for code in DOCUMENTS[name].code:
        if re.fullmatch(r"(?:src|tests|deploy|events|benches|docs)/[\w./-]*", code) and "NAME" not in code:
            assert (ROOT / code).exists(), code


@pytest.mark.parametrize("code", DOCUMENTS["docs/add-a-chat-platform.md"].code)
def test_names_of_the_guide_are_in_the_code(code):
    if re.fullmatch(r"[A-Za-z_]+(?:::[A-Za-z]+)?", code):
        sources = "\n".join(path.read_text() for folder in ["src", "tests"] for path in (ROOT / folder).rglob("*.rs"))
        assert re.search(rf"\b{code}\b", sources), code


def test_quoted_messages_are_those_that_people_read():
    sources = "\n".join(path.read_text() for folder in ["src", "tests"] for path in (ROOT / folder).rglob("*.rs"))
    quoted = [
        (document.name, text)
        for document in DOCUMENTS.values()
        for cell in re.findall(r"^\| ([^|]+) \|", document.text, re.M)
        for text in re.findall("“([^”]+)”", cell)
    ]
    assert len(quoted) > 3
    for name, text in quoted:
        # The name of the tenant is put in.
        assert text in sources or re.sub(r"this \w+ \w+$", "this {tenant}", text) in sources, (name, text)
    # What to do, in the doctor's example.
    (example,) = [text for _, text, _ in DOCUMENTS["docs/operate.md"].fences if text.startswith("✓ table")]
    advice = re.findall(r"^    (.+)$", example, re.M)
    assert advice and all(line in sources for line in advice), advice


# Commands.


def simple_commands(script):
    """The words of each command, also of those in `$(…)`."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split, lexer.commenters = True, ""
        words, skip = [], False
        for word in [*lexer, ";"]:
            for inner in re.findall(r"\$\(([^()]*)\)", word):
                yield from simple_commands(inner)
            if skip:
                skip = False
            elif word.startswith("#"):
                break
            elif set(word) <= set("();<>|&"):
                if set(word) & set("<>"):
                    skip = True
                    if words and words[-1].isdigit():
                        words.pop()
                    continue
                yield words
                words = []
            else:
                words.append(word)
        yield words


def commands(script):
    """Each command, without assignments and keywords."""
    for words in simple_commands(script):
        while words and (re.match(r"\w+=", words[0]) or words[0] in {"do", "then", "else", "{", "}", "done", "fi", "if", "!"}):
            words = words[1:]
        if words and words[0] not in {"for", "while"}:
            yield words


def named(words):
    rest = [word for word in words[1:] if not word.startswith("-chdir")]
    return " ".join([words[0], *rest[:1]] if words[0] in WITH_SUBCOMMANDS else words[:1])


def all_commands():
    for document in DOCUMENTS.values():
        for language, text, _ in document.fences:
            if language in SHELL:
                yield from commands(text)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_blocks_say_their_language(name):
    assert {language for language, _, _ in DOCUMENTS[name].fences} <= LANGUAGES


@pytest.mark.parametrize("script", blocks(*SHELL))
def test_the_shell_understands_it(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_each_command_is_checked_as_far_as_the_lists_say():
    assert not RUN & PARSED and not (RUN | PARSED) & SYNTAX
    found = {named(words) for words in all_commands()}
    # `make demo` plays it.
    assert found | {"peergate demo"} == RUN | PARSED | SYNTAX
    print("only the shell's syntax of these is checked:", *sorted(SYNTAX), sep="\n  ")


def make(words):
    done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def cargo(words):
    options = tomllib.loads((ROOT / "Cargo.toml").read_text())["features"]
    flags = {word for word in words if word.startswith("--")}
    assert flags <= {"--locked", "--features", "--bins", "--bin", "--release", "--test"}, words
    for flag, value in zip(words, words[1:]):
        assert flag != "--features" or value in options, value
        assert flag != "--test" or (ROOT / "tests" / value / "main.rs").exists(), value


def in_checkout(path):
    return path.replace("$CHECKOUT", str(ROOT))


def cargo_lambda(words):
    told = subprocess.run([BIN / "cargo-lambda", *words[1:3], "--help"], capture_output=True, text=True, check=True).stdout
    for word in words[3:]:
        assert not word.startswith("-") or re.search(rf"(?<!\w){re.escape(word)}\b", told), word
    if "--data-file" in words:
        file = words[words.index("--data-file") + 1]
        assert file == "event.json" or (ROOT / in_checkout(file)).exists(), file


def aws(words):
    service, command, options = words[1], words[2], words[3:]
    session = botocore.session.get_session()
    model = session.get_service_model(service)
    if command == "wait":
        waiters = session.create_client(service, region_name="eu-central-1").waiter_names
        assert options[0].replace("-", "_") in waiters, options
        return
    (operation,) = [name for name in model.operation_names if xform_name(name, "-") == command]
    shape = model.operation_model(operation)
    members = shape.input_shape.members if shape.input_shape else {}
    required = shape.input_shape.required_members if shape.input_shape else []
    given = {word.removeprefix("--") for word in options if word.startswith("--")}
    assert given <= {xform_name(name, "-") for name in members} | {"query", "output", "cli-binary-format"}, words
    assert {xform_name(name, "-") for name in required} <= given, words
    for option, value in zip(options, options[1:]):
        answered = re.match(r"\w+", value)
        assert option != "--query" or answered[0] in shape.output_shape.members, value
        file = re.match(r"(?:file|fileb)://(.*)", value)
        # The operator makes the file of the secrets.
        assert not file or file[1] == "peergate.secrets.json" or (ROOT / file[1]).exists(), value


def terraform(words):
    """test_terraform.py applies it with Terraform itself."""
    variables = set(re.findall(r'^variable "(\w+)"', (ROOT / "deploy" / "alicloud" / "main.tf").read_text(), re.M))
    for option, value in zip(words, words[1:]):
        assert option != "-var" or value.split("=")[0] in variables, value
    for word in words[1:]:
        assert not word.startswith("-chdir=") or (ROOT / word.removeprefix("-chdir=")).is_dir(), word


def copied(words):
    assert len(words) == 3 and (ROOT / in_checkout(words[1])).exists(), words


def fake(words):
    """test_agents_playground.py runs it, too, if the Agents Playground is installed."""
    listen = words.index("--listen") + 1
    Program([PEERGATE, *words[1:listen], "127.0.0.1:0", *words[listen + 1 :]], r"listening on (http://\S+)").stop()


def playground(words):
    """test_agents_playground.py runs it, if it is installed."""
    assert words[1:3] == ["start", "--app-endpoint"] and len(words) == 4, words


def python(words):
    assert words[1:3] == ["-m", "pytest"] and all((ROOT / word).exists() for word in words[3:]), words


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words)[:60]) for words in all_commands() if named(words) in PARSED])
def test_commands_that_cannot_run_here_are_ones_that_there_are(words):
    if words[0] == "cd":
        assert (ROOT / in_checkout(words[1])).is_dir(), words
    elif words[:2] == ["cargo", "lambda"]:
        cargo_lambda(words)
    else:
        nothing = lambda words: None  # noqa: E731
        check = {"make": make, "cargo": cargo, "aws": aws, "terraform": terraform, "cp": copied, ".venv/bin/python": python}
        # The reader chooses these variables and folders.
        check |= {"$EDITOR": nothing, "export": nothing, "mkdir": nothing, "agentsplayground": playground, "peergate": fake}
        check[words[0]](words)


# Sentences name commands without all of their arguments.
INLINE = sorted({code for document in DOCUMENTS.values() for code in document.code})


@pytest.mark.parametrize("code", [code for code in INLINE if re.match(r"peergate [a-z]", code)])
def test_commands_in_sentences_are_ones_that_peergate_has(code):
    words = [word for word in shlex.split(code) if word not in {"…"}]
    done = subprocess.run([PEERGATE, *words[1:], "--help"], capture_output=True, text=True)
    assert done.returncode == 0 or f"a value is required for '{words[-1]} " in done.stderr, done.stderr


@pytest.mark.parametrize("code", [code for code in INLINE if re.match(r"make [a-z]", code)])
def test_targets_in_sentences_are_ones_that_the_makefile_has(code):
    make(shlex.split(code))


# Configuration.

GOOD = {
    "access_key_id": "LTAI5tExample",
    "access_key_secret": "example",
    "bot_token": "xoxb-example",
    "encrypt_key": "an encrypt key",
    "verification_token": "0123456789abcdefghij",
    "app_secret": "0123456789abcdefghijklmn",
    "api_secrets": "an-api-secret-0123456789",
    "app_secrets": "fakeClientSecret0123456789abcdefghi",
    "path_secrets": "0123456789abcdef0123456789abcdef",
    "client_secrets": "0123456789abcdefghijklmn~",
    "binding_keys": "YSBrZXkgb2YgYnV0dG9ucywgdGhpcnR5LXR3byBieXRlcyE=",
}
BASE = """
[targets.prod]
account = "2222222222222222"
regions = ["cn-shanghai"]
[clients.ci]
[platforms.slack]
teams = ["T0001"]
app = "A0123"
[people.alice]
principals = ["slack:T0001/U061F7AUR", "webhook:ci/alice"]
"""
BASE_SECRETS = {
    "targets": {name: {key: GOOD[key] for key in ["access_key_id", "access_key_secret"]} for name in ["prod", "hub"]},
    "clients": {"ci": {"signing_secrets": [CI_SECRET]}},
    "platforms": {
        "slack": {"signing_secrets": [SLACK_SECRET], "bot_token": GOOD["bot_token"]},
        "feishu": {
            "callbacks": [{key: GOOD[key] for key in ["encrypt_key", "verification_token"]}],
            "app_secret": GOOD["app_secret"],
        },
        "dingtalk": {key: [GOOD[key]] for key in ["api_secrets", "app_secrets", "path_secrets"]},
        "teams": {"client_secrets": [GOOD["client_secrets"]]},
    },
    "channels": {
        "audit": {"url": "https://example.com/audit", "signing_secrets": [AUDIT_SECRET]},
        "hook": {"url": "https://example.com/hook"},
        "news": {"url": "https://example.com/news"},
        "robot": {"url": "https://example.com/robot"},
        "flow": {"url": "https://example.com/flow"},
    },
}


def merge(into, more):
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


def filled(value, path=()):
    """The document, with each “…” replaced by a valid value."""
    if isinstance(value, dict):
        return {key: filled(one, (*path, key)) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, path) for one in value]
    if not isinstance(value, str) or "…" not in value:
        return value
    if path[-1] == "signing_secrets":
        return {"clients": CI_SECRET, "channels": AUDIT_SECRET}.get(path[0], SLACK_SECRET)
    return f"https://example.com/{path[-2]}" if path[-1] == "url" else GOOD[path[-1]]


def write(directory, config, secrets):
    (directory / "peergate.toml").write_text(config)
    (directory / "peergate.secrets.json").write_text(json.dumps(secrets))


def bare():
    """An environment without variables of clouds."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PEERGATE_"))}
    return {**keep, "PATH": f"{PEERGATE.parent}:{BIN}:{os.environ['PATH']}"}


def accepted(directory):
    """The program reads configuration and secrets before it signs anything."""
    command = [PEERGATE, "event", "list", "--client", "ci", "--actor", "alice"]
    done = subprocess.run(command, cwd=directory, env=bare(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def validator(name):
    return jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "schema" / f"{name}.json").read_text()))


def events():
    schema = validator("events").schema
    return [schema["$defs"][one["$ref"].rsplit("/", 1)[1]] for one in schema["oneOf"]]


@pytest.mark.parametrize("text", [*blocks("toml"), pytest.param((ROOT / "peergate.example.toml").read_text(), id="example")])
def test_configuration_is_what_the_program_accepts(text, tmp_path):
    config = merge(tomllib.loads(BASE), tomllib.loads(text))
    write(tmp_path, tomlkit.dumps(config), BASE_SECRETS)
    accepted(tmp_path)
    schema = validator("config")
    schema.validate(config)
    # An unknown key is refused.
    assert not schema.is_valid(config | {"unknown": 1})
    write(tmp_path, tomlkit.dumps(config | {"unknown": 1}), BASE_SECRETS)
    with pytest.raises(AssertionError, match="unknown"):
        accepted(tmp_path)


@pytest.mark.parametrize("text", blocks("json"))
def test_json_is_json_and_secrets_are_what_the_program_accepts(text, tmp_path):
    document = json.loads(text)
    if set(document) <= {"targets", "clients", "platforms", "channels", "binding_keys"}:
        channels = {name: {"kind": "standard-webhooks"} for name in ["audit"]} | {"hook": {"kind": "slack-webhook"}}
        channels["news"] = {"kind": "feishu-bot"}
        channels |= {"robot": {"kind": "dingtalk-robot"}, "flow": {"kind": "teams-workflow"}}
        feishu = {"app": "cli_a6ee8fbe9ffe6d3d", "tenant": "82dfe55c5a220620", "host": "feishu"}
        dingtalk = {"app": "dingapp", "corp": "dingcorp", "template": "a.schema"}
        teams = {"app": "6fd21178-5a8a-4fd8-a3bc-16f017de3f7a", "tenant": "50703947-19f8-4dd8-af0e-60d29681f7c0"}
        teams |= {"cloud": "public", "conversations": ["19:team@thread.tacv2"]}
        platforms = {"feishu": feishu, "dingtalk": dingtalk, "teams": teams}
        config = merge(tomllib.loads(BASE), {"channels": channels, "platforms": platforms})
        secrets = merge(json.loads(json.dumps(BASE_SECRETS)), filled(document))
        write(tmp_path, tomlkit.dumps(config), secrets)
        accepted(tmp_path)
        schema = validator("secrets")
        schema.validate(secrets)
        assert not schema.is_valid(secrets | {"unknown": 1})
    elif document.get("type", "").startswith("peering.") and "news" in document["data"]:
        # The record is shortened.
        (schema,) = [one for one in events() if one["properties"]["type"]["const"] == document["type"]]
        known = schema["properties"]["data"]["properties"]
        assert set(document) == set(schema["required"]) and set(document["data"]) == set(known)
        assert set(document["data"]["news"]) == set(known["news"]["required"])


# Commands that run.


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def page(name, *languages):
    return [text for language, text, _ in DOCUMENTS[name].fences if language in languages]


class Trial:
    """docs/try-it.md, on free ports: its files, and its two servers."""

    def __init__(self, directory):
        self.directory, self.servers, self.id = directory, [], ""
        self.ports = {port: str(free_port()) for port in ["8000", "8080", "9000", "9001"]}
        (config,), (secrets,) = page("docs/try-it.md", "toml"), page("docs/try-it.md", "json")
        write(directory, self.moved(config), json.loads(secrets))
        (program,) = page("docs/try-it.md", "python")
        (directory / "send.py").write_text(self.moved(program))
        first = [text for text in page("docs/try-it.md", "sh") if re.match(r"peergate (simulate|serve)", text)][:2]
        for text in first:
            self.start(text)
        wait_for("the request is found", lambda: self.id in self.run("peergate list"))

    def moved(self, text):
        """The text with our ports, and with the id that the simulator printed."""
        for port, free in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}").replace(f"-P {port}", f"-P {free}")
        return text.replace("pcc-…", self.id)

    def start(self, text):
        """Starts a server, with the variables that stand before its command."""
        words = shlex.split(self.moved(text))
        variables = dict(word.split("=", 1) for word in words if "=" in word)
        words = [word for word in words if "=" not in word]
        assert words[0] == "peergate"
        server = Program([PEERGATE, *words[1:]], r"listening on (http://\S+)", cwd=self.directory, env=bare() | variables)
        self.servers.append(server)
        if "--request" in words:
            self.id = wait_for("the request is printed", lambda: re.search(r"requested (pcc-\w+)\n", "".join(server.output)))[1]

    def run(self, script, status=0, **more):
        done = subprocess.run(
            ["bash", "-euo", "pipefail"],
            input=self.moved(script),
            cwd=self.directory,
            env=bare() | {"ID": self.id, "CHECKOUT": str(ROOT)} | more,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == status or status is None and done.returncode in {0, 1}, (script, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def stop(self):
        for server in self.servers:
            server.stop()


@pytest.fixture
def trial(tmp_path):
    trial = Trial(tmp_path)
    yield trial
    trial.stop()


def test_the_steps_of_the_trial_lead_to_an_activation(trial):
    steps = page("docs/try-it.md", "sh")
    first = next(number for number, text in enumerate(steps) if text.startswith("peergate list"))
    last = next(number for number, text in enumerate(steps) if "peergate verify" in text)
    printed = trial.run("\n".join(steps[first : last + 1]))
    assert "\ncounted\naccepted\n" in printed, printed
    assert "approved by bob" in printed and "all valid" in printed, printed
    wait_for("Activated", lambda: "is Activated" in trial.run(f"peergate show {trial.id}"))


def test_the_functions_of_the_trial_carry_out_the_approval(trial):
    """The last part of the page: servers in the background, then each command in its order."""
    for server in trial.servers:
        server.stop()
    text = DOCUMENTS["docs/try-it.md"].text
    first = text[: text.index("## As Lambda functions")].count("\n")
    steps = [step for language, step, line in DOCUMENTS["docs/try-it.md"].fences if language == "sh" and line > first]
    simulate, serve_table, watch, start, approve, finish = steps
    trial.start(simulate)
    trial.start(serve_table)
    log = open(trial.directory / "watch.log", "w")
    script = trial.moved(watch).replace("cargo lambda", "exec cargo lambda")
    assert "--ignore-changes" in script, "a test that writes into the checkout would stop the functions"
    functions = subprocess.Popen(
        ["bash", "-euc", script],
        cwd=trial.directory,
        env=bare() | {"CHECKOUT": str(ROOT)},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        wait_for("cargo lambda watch", lambda: is_listening(int(trial.ports["9001"])))
        printed = trial.run(start)
        assert printed.startswith("null\n") and '\\"status\\":\\"ok\\"' in printed, printed
        printed = trial.run(approve)
        outcomes = [json.loads(json.loads(line)["body"])["outcome"] for line in printed.splitlines() if line.startswith("{")]
        assert outcomes == ["counted", "accepted"], printed
        assert "is Activated" in trial.run(finish)
    finally:
        os.killpg(functions.pid, signal.SIGTERM)
        functions.wait(30)
    checkout = subprocess.run(["git", "status", "--porcelain", "--ignored"], cwd=ROOT, capture_output=True, text=True).stdout
    assert not re.search(r"functions\.db|event\.json", checkout), checkout


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_program_that_sends_webhooks_is_understood(trial):
    (program,) = page("docs/standard-webhooks.md", "python")
    (trial.directory / "program.py").write_text(trial.moved(program))
    assert trial.run("python program.py") == "counted\n"
    # The client of this page sends the body of the page on the HTTP API.
    (request,) = [text for text in page("docs/http-api.md", "json") if "dry_run" in text]
    request = json.loads(request)
    data = request["data"] | {"instance_id": trial.id, "actor": "bob"}
    lines = program.split("seen = ")[0] + f"seen = send('peering.status', instance_id={trial.id!r}, actor='bob')\n"
    lines += f"data = {data!r} | {{'fingerprint': seen['connection']['fingerprint']}}\nprint(send({request['type']!r}, **data)['outcome'])\n"
    (trial.directory / "program.py").write_text(trial.moved(lines))
    assert trial.run("python program.py") == "accepted\n"


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl here")
@pytest.mark.parametrize("name", ["docs/configuration.md", "docs/standard-webhooks.md"])
def test_keys_are_made_as_the_page_says(name):
    for script in [script for script in page(name, "sh") if "openssl" in script]:
        made = subprocess.run(["bash", "-euo", "pipefail"], input=script, capture_output=True, text=True, check=True).stdout.splitlines()
        assert made and re.fullmatch(r"whsec_[\w+/]{43}=", made[0]), made


def table(name, client):
    from test_lambda import table as defined

    client.create_table(TableName=name, **defined())


def test_the_commands_of_peergate_run(trial, moto):
    for server in trial.servers[1:]:
        server.stop()
    config = tomllib.loads((trial.directory / "peergate.toml").read_text())
    pages = [page(f"docs/{name}.md", "toml") for name in ["slack", "feishu", "dingtalk", "teams"]]
    for first, *_ in pages:
        merge(config, tomllib.loads(first))
    config["people"] = {
        "alice": {"principals": ["webhook:ci/alice", "slack:T0001/U061F7AUR"]},
        "bob": {"principals": ["webhook:ci/bob"]},
    }
    nowhere = f"http://127.0.0.1:{free_port()}/"
    config["platforms"]["slack"]["api"] = config["platforms"]["feishu"]["api"] = nowhere
    # `register` calls DingTalk.
    dingtalk = Program([PEERGATE, "fake", "dingtalk", "--listen", "127.0.0.1:0"], r"(http://\S+)")
    trial.servers.append(dingtalk)
    config["platforms"]["dingtalk"]["api"] = dingtalk.url.rstrip("/") + "/"
    config["platforms"]["teams"] |= {"login": nowhere, "keys": nowhere}
    secrets = json.loads(json.dumps(BASE_SECRETS))
    secrets["targets"] = {"prod": {"access_key_id": "accepter-key", "access_key_secret": "accepter-secret"}}
    write(trial.directory, tomlkit.dumps(config), secrets)
    shutil.copytree(trial.directory, trial.directory / "config")
    (trial.directory / "backup").mkdir()
    for path in trial.directory.glob("peergate.db*"):
        shutil.copy(path, trial.directory / "backup")

    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    clients = {
        name: boto3.client(name, endpoint_url=moto.url, region_name="eu-central-1", **{key.lower(): value for key, value in keys.items()})
        for name in ["dynamodb", "secretsmanager", "events"]
    }
    prefix = f"docs-{time.time_ns()}"
    for name in [prefix, f"{prefix}-restored"]:
        table(name, clients["dynamodb"])
    clients["secretsmanager"].create_secret(Name=prefix, SecretString=json.dumps(secrets))
    clients["events"].put_rule(Name=prefix, ScheduleExpression="rate(1 minute)", State="ENABLED")
    clouds = {**keys, "AWS_ENDPOINT_URL": moto.url, "AWS_REGION": "eu-central-1", "PEERGATE_TABLE": prefix}

    ran = {"simulate", "serve"}
    for document in DOCUMENTS.values():
        for language, text, _ in document.fences:
            for line in text.replace("\\\n", " ").splitlines() if language in SHELL else []:
                found = re.search(r"(?:^|\s)peergate ([a-z]+)", line.split("#")[0])
                if not found or found[1] in {"fake", "serve", "simulate"} or document.name == "docs/try-it.md" and found[1] != "event":
                    continue
                line = line.replace("AWS_REGION=…", "").replace("PEERGATE_TABLE=…", "")
                line = line.replace("PEERGATE_TABLE=TABLE", "").replace("--channel NAME", "--channel netops").replace("--rule RULE", f"--rule {prefix}")
                line = line.replace("peergate-restored", f"{prefix}-restored").replace("PEERGATE_SECRETS=peergate ", f"PEERGATE_SECRETS={prefix} ")
                in_aws = "--aws" in line or found[1] == "doctor" and "--store" not in line
                # The findings of the doctor do not matter here. The request is not active, so nobody can adopt it.
                status = {"doctor": None, "adopt": 1}.get(found[1], 0)
                printed = trial.run(line, status=status, **(clouds if in_aws else {}))
                assert "Usage:" not in printed, printed
                assert found[1] != "doctor" or ("✓ schedule" if in_aws else "✓ table, TTL") in printed, printed
                ran.add(found[1])
    served = [text for text in page("docs/try-it.md", "sh") if " peergate table " in text]
    trial.start(served[0])
    ran.add("table")
    # Another test runs `verify`; `make demo` plays the demo.
    assert {f"peergate {name}" for name in ran} | {"peergate demo"} == {name for name in RUN if name.startswith("peergate ")}


def test_the_json_of_an_event_is_signed_for_the_simulator(trial):
    event = json.loads(trial.run(f"peergate event approve {trial.id}"))
    assert event["rawPath"] == "/webhook/ci" and json.loads(event["body"])["data"]["fingerprint"]
