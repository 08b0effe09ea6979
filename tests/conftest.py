"""What holds for every test: hypothesis judges invariants, not how busy the machine is."""

import hypothesis

hypothesis.settings.register_profile("postroom", deadline=None)
hypothesis.settings.load_profile("postroom")
