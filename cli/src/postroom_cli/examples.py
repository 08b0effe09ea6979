"""The first MailDomain and SendingPool that `postroom init` writes and `postroom up --sink` uses."""

TEXT = """\
# A SendingPool says how mail leaves: when it is tried again, how fast, by which way.
apiVersion: mail.postroom.dev/v1alpha1
kind: SendingPool
metadata: {{name: main}}
spec:
  trafficClass: Transactional
  retry: {{maxAge: 120h, backoff: {{initial: 60s, max: 4h}}}}
  destinationLimits:
  - {{name: default, match: ["*"], maxConnections: 10, messagesPerConnection: 100}}
---
# A MailDomain says who may send as a domain, and that its mail is signed.
apiVersion: mail.postroom.dev/v1alpha1
kind: MailDomain
metadata: {{name: {name}}}
spec:
  domainName: {domain}
  poolRef: {{name: main}}
  dkim: {{}}                      # keys are made at the first start; postroom dns {domain} shows what to publish
  credentials:
  - name: app
    secretRef: {{name: {name}-app}}   # made with a random password when it is absent, and shown by postroom up
    allowedSenders: ["*@{domain}"]
  limits: {{messagesPerHour: 20000, maxRecipientsPerMessage: 100}}
"""


def text(domain: str) -> str:
    """The pair for a domain."""
    return TEXT.format(domain=domain, name=domain.replace(".", "-"))
