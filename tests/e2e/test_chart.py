"""What the chart adds to the services: its own test, the page, and the word of every ingress that a change is in force."""

import base64
import http.cookiejar
import urllib.parse
import urllib.request

import pytest
from e2e.installation import DOMAIN, Installation
from e2e.world import READY, ROOT, get, items, kubectl, service_address, until

CHART = ROOT / "charts" / "postroom"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def test_helm_test_sends_a_message_verifies_its_signature_and_leaves_nothing(postroom: Installation) -> None:
    told = postroom.helm("test", "postroom", "--logs", "--timeout", "280s")
    assert "signed and verified" in told, told
    assert get("sendingpool", "helm-test", postroom.namespace) == get("maildomain", "helm-test", postroom.namespace) == {}
    assert items("secrets", postroom.namespace, "app.kubernetes.io/component=test") == []
    until("the volume is gone", lambda: not get("pvc", "spool-helm-test-delivery-0", postroom.namespace), READY)
    print(told[told.index("accepted after") :].splitlines()[0])


def test_a_change_is_told_to_be_in_force_when_every_ingress_has_it(postroom: Installation) -> None:
    kubectl("-n", postroom.namespace, "patch", "maildomain", DOMAIN, "--type=merge", "-p", '{"spec":{"limits":{"messagesPerHour":100000}}}')
    wanted = get("maildomain", DOMAIN, postroom.namespace)["metadata"]["generation"]
    until("it is in force", lambda: get("maildomain", DOMAIN, postroom.namespace)["status"].get("limitsGeneration") == wanted, 15)


def test_the_page_of_a_pool_shows_its_domain_to_who_has_the_token(postroom: Installation) -> None:
    postroom.install(CHART, **{"page.pools": "{main}"})
    until("the page is ready", lambda: postroom.ready("web"), READY)
    data = get("secret", "postroom-web-tokens", postroom.namespace)["data"]
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    where = f"http://{service_address('postroom-web-main', postroom.namespace)}"
    form = urllib.parse.urlencode({"token": base64.b64decode(data["viewer"]).decode()}).encode()
    with browser.open(f"{where}/login", form, timeout=20) as answer:
        assert answer.status == 200

    def shown() -> bool:
        with browser.open(f"{where}/domains/{DOMAIN}", timeout=20) as answer:
            return f"_domainkey.{DOMAIN}" in answer.read().decode()

    until("its records", shown, READY)
