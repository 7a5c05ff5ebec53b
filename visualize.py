from deepviz.cli import main

raise SystemExit(main())
