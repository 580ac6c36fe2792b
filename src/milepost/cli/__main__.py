"""`python -m milepost.cli` is `milepost`."""

from milepost.cli.entry import main

raise SystemExit(main())
