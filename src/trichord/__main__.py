from trichord.cli import main

raise SystemExit(main())
