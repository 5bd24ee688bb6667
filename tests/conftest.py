pytest_plugins = ["cni_underlay.lab.fixtures"]
