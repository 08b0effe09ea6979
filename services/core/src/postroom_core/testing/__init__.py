"""The test kit: fakes of what Postroom talks to. Product code, public, and held to the real thing by contract tests.

`clock` is time that moves when told, `dns` a name server with scripted faults, `sink` a receiving mail server with scripted faults,
`certificate` throw-away TLS certificates. No service imports this package; `postroom up --sink` and tests do.
"""
