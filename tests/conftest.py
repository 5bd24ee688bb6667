from hypothesis import HealthCheck, settings

pytest_plugins = ["cni_underlay.lab.fixtures"]

# How fast a shared machine generates examples says nothing about the code.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
