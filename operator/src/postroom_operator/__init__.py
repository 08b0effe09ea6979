"""The operator: turns MailDomain and SendingPool into what the services need. Today its plan, used by `postroom up` on one machine."""
