from cni_underlay.agent.main import main

main()
