"""scripts/lab: labs from the shell.

  lab up FILE                       build the lab of a topology file; it stays until `down`
  lab status [-o json] LAB          what runs in it
  lab exec LAB HOST -- CMD...       run a command in a host (NODE/POD is a pod)
  lab add-pod LAB NODE POD [--datapath veth|macvlan|ipvlan | --conf CONFLIST]
  lab del-pod LAB NODE POD
  lab logs LAB HOST                 what the node's agent, or the guest's console, said
  lab down LAB                      take it away, whole or half-made; LAB may be gone already
  lab list                          every lab on this machine

LAB is the topology file, or a lab's id as `list` shows it.
"""
