import sys

from cni_underlay.lab.main import main

sys.exit(main())
