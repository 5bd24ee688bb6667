from cni_underlay.cli.main import main

main()
