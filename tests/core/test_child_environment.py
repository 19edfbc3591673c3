"""The variables of `uvtokend exec`: each leads to the index's own host, otherwise the command is refused."""

from __future__ import annotations

import pytest

from uvtokend.core import child_environment
from uvtokend.core.child_environment import Access
from uvtokend.core.model import Secret
from uvtokend.errors import UsageError

URL = "https://pkgs.example.com/acme/simple/"
UPLOAD = "https://pkgs.example.com/acme/"
ACCESS = Access("my-index.2", URL, "static", "me", Secret("t0ken"))


def test_names_become_variables_as_in_uv() -> None:
    """As in uv, letters become upper case and every other character except a digit becomes an underscore."""
    assert child_environment.env_name("my-index.2_x") == "MY_INDEX_2_X"
    assert child_environment.env_name("grün²") == "GR_N_"


def test_one_index_gets_the_variables_to_publish() -> None:
    """With one index, uv's and twine's publishing variables hold its credential, always together with its own upload
    URL.

    An inherited UV_PUBLISH_TOKEN is removed, because uv refuses it together with a user name.
    """
    environment = child_environment.environment(
        [ACCESS], {"PATH": "/bin", "UV_PUBLISH_INDEX": "my-index.2", "UV_PUBLISH_TOKEN": "x"}
    )
    assert environment == {
        "PATH": "/bin",
        "UV_INDEX_MY_INDEX_2_USERNAME": "me",
        "UV_INDEX_MY_INDEX_2_PASSWORD": "t0ken",
        "UV_PUBLISH_URL": UPLOAD,
        "UV_PUBLISH_USERNAME": "me",
        "UV_PUBLISH_PASSWORD": "t0ken",
        "TWINE_REPOSITORY_URL": UPLOAD,
        "TWINE_USERNAME": "me",
        "TWINE_PASSWORD": "t0ken",
    }


def test_two_indexes_get_none_to_publish() -> None:
    """With two indexes no publishing variables are set, because nothing says which index to publish to."""
    other = Access("b", "https://b.example/simple/", "static", "you", Secret("other"))
    environment = child_environment.environment([ACCESS, other], {})
    assert sorted(environment) == [
        "UV_INDEX_B_PASSWORD",
        "UV_INDEX_B_USERNAME",
        "UV_INDEX_MY_INDEX_2_PASSWORD",
        "UV_INDEX_MY_INDEX_2_USERNAME",
    ]


def test_two_names_with_the_same_variable_are_refused() -> None:
    """Two index names that need the same variable are refused, because one credential would shadow the other."""
    child_environment.check_names(["a", "b", "a"])
    with pytest.raises(UsageError, match=r"'a-b' and 'a\.b'.*UV_INDEX_A_B_PASSWORD"):
        child_environment.check_names(["a-b", "c", "a.b"])


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/acme/simple/",
        "http://pkgs.example.com/acme/",
        "nonsense",
        "https://evil.example\\@pkgs.example.com/acme/",
        "https:/evil.example/acme/",
        "https:///evil.example/acme/",
        "https:evil.example/acme/",
        "https:\\\\evil.example/acme/",
        " https://evil.example/acme/",
        "https://evil\u3002example/acme/",
    ],
)
def test_an_index_with_another_host_in_uv_is_refused(url: str) -> None:
    """If uv's configuration gives the index name another host, in any spelling, uv would send the credential there."""
    known = [("other", url, "x"), ("MY_INDEX-2", url, "pyproject.toml")]
    child_environment.check_uv("my-index.2", URL, known[:1])
    child_environment.check_uv("my-index.2", URL, [("my-index.2", "https://PKGS.example.com:443/other/", "uv.toml")])
    with pytest.raises(UsageError, match=r"In pyproject\.toml, .*'MY_INDEX-2'") as caught:
        child_environment.check_uv("my-index.2", URL, known)
    host = {"https://evil.example/acme/simple/": "evil.example", "http://pkgs.example.com/acme/": "pkgs.example.com"}
    where = host.get(url, "a host that cannot be told for certain")
    assert caught.value.message.endswith(f"on pkgs.example.com: uv would send this token to {where}.")
    assert caught.value.hint == "correct the URL in pyproject.toml, or rename one of the two indexes"


def test_a_password_in_uvs_configuration_is_not_shown() -> None:
    """The message shows the host of the URL in uv's configuration but not its password."""
    with pytest.raises(UsageError) as caught:
        child_environment.check_uv("a", URL, [("a", "https://u:hunter2@evil.example/", "uv.toml")])
    assert "hunter2" not in caught.value.message
    assert "evil.example" in caught.value.message


@pytest.mark.parametrize(
    "environ",
    [
        {"UV_PUBLISH_URL": "https://evil.example/"},
        {"TWINE_REPOSITORY_URL": "https://evil.example/"},
        {"UV_PUBLISH_INDEX": "other"},
        {"TWINE_REPOSITORY": "other"},
    ],
)
def test_another_target_is_refused(environ: dict[str, str]) -> None:
    """If a variable names another target, `uv publish` or `twine upload` would send the token or the package there."""
    with pytest.raises(UsageError) as caught:
        child_environment.check_targets("a", UPLOAD, environ)
    assert caught.value.hint == f"unset {next(iter(environ))}"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["uv", "publish", "--publish-url", "https://evil.example/"], "--publish-url"),
        (["/bin/uv", "publish", "--publish-url=https://evil.example/", "dist/*"], "--publish-url"),
        (["uv", "publish", "--index", "other"], "--index"),
        (["twine", "upload", "-r", "other", "dist/*"], "-r"),
        (["python3.12", "-m", "twine", "upload", "--repository-url", "https://evil.example/"], "--repository-url"),
        (["uv", "publish", "--publish-url"], "--publish-url"),
        (["uvx", "twine@6", "upload", "--repository-url", "https://e.example/"], "--repository-url"),
        (["uv", "run", "twine", "upload", "--repository-u", "https://e.example/"], "--repository-u"),
        (["twine", "upload", "--re", "other"], "--re"),
        (["env", "A=b", "/bin/uv", "publish", "--publish-url=https://e.example/"], "--publish-url"),
    ],
)
def test_another_target_on_the_command_line_is_refused(command: list[str], option: str) -> None:
    """Options on the command line override the variables, so another target there would receive the token."""
    with pytest.raises(UsageError) as caught:
        child_environment.check_publishing("a", "static", URL, command)
    assert caught.value.hint == f"remove {option} from the command"


@pytest.mark.parametrize(
    "command",
    [
        ["uv", "publish", "--publish-url", UPLOAD.rstrip("/")],
        ["uv", "publish", "--index", "a", "dist/*"],
        ["twine", "upload", f"--repository-url={UPLOAD}"],
        ["twine", "check", "-r", "other"],
        ["uv", "sync", "--index", "other"],
        ["python", "publish", "-r", "other"],
        ["make", "upload", "-r", "other", ""],
        ["twine", "upload", "--r", "other"],  # it may begin several options of twine, which refuses it
        [],
    ],
)
def test_the_same_target_on_the_command_line_is_fine(command: list[str]) -> None:
    """The index's own target and commands that do not publish are accepted."""
    child_environment.check_publishing("a", "static", URL, command)


def test_two_other_targets_have_one_fix() -> None:
    """One `unset` command removes all variables that name another target."""
    environ = {"UV_PUBLISH_URL": "https://e.example/", "TWINE_REPOSITORY": "other"}
    with pytest.raises(UsageError) as caught:
        child_environment.check_targets("a", UPLOAD, environ)
    assert caught.value.hint == "unset TWINE_REPOSITORY UV_PUBLISH_URL"


def test_the_same_target_is_fine() -> None:
    """The index's own target is accepted, and so is an empty variable, which uv and twine treat as unset."""
    same = {"UV_PUBLISH_URL": UPLOAD[:-1], "UV_PUBLISH_INDEX": "a", "TWINE_REPOSITORY": ""}
    child_environment.check_targets("a", UPLOAD, same)


@pytest.mark.parametrize(
    ("provider", "url", "upload"),
    [
        ("aws-codeartifact", "https://a-1.d.codeartifact.eu-west-1.amazonaws.com/pypi/r/simple/", "…/pypi/r/"),
        ("google-artifact-registry", "https://europe-python.pkg.dev/p/r/simple/", "…/p/r/"),
        (
            "azure-artifacts",
            "https://pkgs.dev.azure.com/o/p/_packaging/f/pypi/simple/",
            "…/o/p/_packaging/f/pypi/upload/",
        ),
        ("jfrog-artifactory", "https://a.jfrog.io/artifactory/api/pypi/r/simple", "…/artifactory/api/pypi/r/"),
        ("nexus", "https://n.example/repository/r/simple", "…/repository/r/"),
        ("static", "http://127.0.0.1:8080/simple/", "…/"),
        ("acme", "https://acme.example/x", "…/x/"),
    ],
)
def test_the_upload_url_of_each_provider(provider: str, url: str, upload: str) -> None:
    """The upload URL is on the index's own host, at the path that the provider documents."""
    origin = "/".join(url.split("/")[:3])
    assert child_environment.upload_url(provider, url) == f"{origin}{upload[1:]}"


def test_a_gitlab_group_accepts_no_uploads() -> None:
    """A GitLab group only lists the packages of its projects, so no publishing variables are set and `uv publish` is
    refused."""
    url = "https://gitlab.com/api/v4/groups/7/-/packages/pypi/simple"
    access = Access("g", url, "gitlab", "u", Secret("t"))
    assert child_environment.upload_url("gitlab", url) is None
    assert sorted(child_environment.environment([access], {})) == ["UV_INDEX_G_PASSWORD", "UV_INDEX_G_USERNAME"]
    for command in (["/bin/uv", "publish"], ["twine", "upload", "dist/*"]):
        with pytest.raises(UsageError, match="is a GitLab group, but packages") as caught:
            child_environment.check_publishing("g", "gitlab", url, command)
        assert caught.value.hint == "uvtokend add https://gitlab.com/api/v4/projects/ID/packages/pypi/simple"
        child_environment.check_publishing("p", "gitlab", url.replace("groups/7/-", "projects/7"), command)
    for command in (["uv", "sync"], ["make", "publish"], []):
        child_environment.check_publishing("g", "gitlab", url, command)


def test_the_message_lists_the_variables_of_another_target() -> None:
    """The message lists every variable that names another target, and the fix unsets them all."""
    for names, what in (
        (("UV_PUBLISH_URL",), "UV_PUBLISH_URL is set and names"),
        (("UV_PUBLISH_URL", "TWINE_REPOSITORY_URL"), "UV_PUBLISH_URL and TWINE_REPOSITORY_URL are set and name"),
    ):
        with pytest.raises(UsageError) as caught:
            child_environment.check_targets(
                "a", "https://a.example/upload/", dict.fromkeys(names, "https://b.example/")
            )
        assert f"{what} another target than the index 'a'" in caught.value.message
        assert caught.value.hint == f"unset {' '.join(names)}"


def test_a_final_slash_does_not_change_the_target() -> None:
    """Targets that differ only in a final slash are equal, in variables and on the command line; all others differ."""
    upload, url = "https://a.example/X", "https://a.example/X/simple/"
    child_environment.check_targets("a", upload, {"UV_PUBLISH_URL": f"{upload}/"})
    for other in ("https://a.example/", "https://a.example"):
        with pytest.raises(UsageError):
            child_environment.check_targets("a", upload, {"UV_PUBLISH_URL": other})
    real = child_environment.upload_url("static", url)
    assert real is not None
    command = ["uv", "publish", "--publish-url"]
    child_environment.check_publishing("a", "static", url, [*command, f"{real.rstrip('/')}/"])
    with pytest.raises(UsageError):
        child_environment.check_publishing("a", "static", url, [*command, real.rstrip("/").removesuffix("X") + "Y"])
