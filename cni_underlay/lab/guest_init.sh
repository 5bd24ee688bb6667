#!/bin/sh
# The guest's init: what it becomes stands on the kernel's command line (lab.mode=vm or lab.mode=run).
export PATH=/bin
/bin/busybox mkdir -p /bin /sbin
/bin/busybox --install -s /bin
ln -s /bin/modprobe /sbin/modprobe

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for word in $(cat /proc/cmdline); do
    case $word in
    lab.*=*) export "lab_${word#lab.}" ;;
    esac
done
hostname "$lab_name"
ip link set lo up
modprobe -a virtio_pci virtio_console
# Ports appear when the host has described them, which is after the module is loaded; the last one last.
until [ -c "/dev/vport0p$lab_ports" ]; do usleep 10000; done

fail() {
    echo "lab: $*" >/dev/console
    poweroff -f
}

# vm: an address, a page, and commands over the channels

split() { echo "$1" | tr , ' '; }

network() {
    # Before the interface exists: addresses must be usable at once, and nobody is asked for more of them.
    for scope in all default; do
        echo 0 >"/proc/sys/net/ipv6/conf/$scope/accept_dad"
        echo 0 >"/proc/sys/net/ipv6/conf/$scope/accept_ra"
    done
    modprobe virtio_net
    until [ -e /sys/class/net/eth0 ]; do usleep 10000; done
    ip link set eth0 mtu "$lab_mtu" up
    for address in $(split "$lab_addresses"); do ip addr add "$address" dev eth0; done
    for gateway in $(split "$lab_gateways"); do
        case $gateway in
        *:*) ip -6 route add default via "$gateway" ;;
        *) ip route add default via "$gateway" ;;
        esac
    done
}

# One line in: identity, seconds, _base64 of standard input, _base64 of a script.
# One line out: identity, status, _base64 of standard output, _base64 of standard error.
channel() {
    mkdir -p "/tmp/$1"
    cd "/tmp/$1" || fail "no /tmp"
    exec <>"/dev/vport0p$1" >&0
    while read -r id seconds input script; do
        rm -f in out err
        echo "${input#_}" | base64 -d >in
        echo "${script#_}" | base64 -d >script
        timeout -s KILL "$seconds" sh ./script <in >out 2>err
        echo "$id $? _$(base64 -w 0 out) _$(base64 -w 0 err)"
    done
}

be_vm() {
    network
    if [ "$lab_http" = yes ]; then
        echo "$lab_name" >/www/index.html
        httpd -p 80 -h /www
    fi
    number=1
    while [ "$number" -le "$lab_ports" ]; do
        channel "$number" &
        number=$((number + 1))
    done
    wait
    fail "all channels ended"
}

# run: the host's files with a layer of memory over them, and one command

be_run() {
    modprobe -a 9pnet_virtio 9p overlay
    # Nobody changes the files meanwhile, so the guest may cache them (cache=loose: 15 s where cache=none took 19 s).
    mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288 root /lower || fail "no 9p"
    mount -t tmpfs -o size=75% tmpfs /upper
    mkdir /upper/data /upper/work
    mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root || fail "no overlay"
    # /tmp stays the host's below its layer of memory: a checkout may lie there.
    mkdir -p /root/run && mount -t tmpfs tmpfs /root/run
    for directory in proc sys dev; do mount --move "/$directory" "/root/$directory"; done
    mkdir -p /root/dev/pts /root/dev/shm /root/run/lab /root/run/netns "/root/lib/modules/$lab_release"
    mount -t devpts devpts /root/dev/pts
    mount -t tmpfs tmpfs /root/dev/shm
    mount --bind "/lower$lab_modules" "/root/lib/modules/$lab_release"
    # busybox's modprobe reads the text index; the machine's own may want kmod's, or not exist.
    cp /bin/busybox /root/run/lab/modprobe
    ln -sf /run/lab/modprobe /root/sbin/modprobe
    cp "/lower$lab_command" /root/run/lab/command || fail "no command"
    # The first process moves itself, because the kernel's own calls of modprobe see the root that it sees.
    exec chroot /root /bin/sh -c '
        echo begin >/dev/vport0p3
        setsid /bin/sh /run/lab/command </dev/null >/dev/vport0p1 2>/dev/vport0p2
        echo "$?" >/dev/vport0p3
        while :; do sleep 1; done'
}

case $lab_mode in
vm) be_vm ;;
run) be_run ;;
*) fail "no lab.mode" ;;
esac
