# One BitTorrent client with python3-libtorrent: seeds or fetches until it is killed, and leaves a file when it has all.
import os, sys, time
import libtorrent as lt

torrent, directory, address, marker, how = sys.argv[1:6]
session = lt.session({
    "listen_interfaces": address + ":6881", "enable_dht": False, "enable_lsd": True, "enable_upnp": False, "enable_natpmp": False,
})
params = lt.add_torrent_params()
params.ti = lt.torrent_info(torrent)
params.save_path = directory
params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if how != "fetch":
    params.flags |= lt.torrent_flags.seed_mode
if how == "super":
    params.flags |= lt.torrent_flags.super_seeding
handle = session.add_torrent(params)
while not handle.status().is_seeding:
    time.sleep(0.05)
if how == "fetch":
    handle.flush_cache()
    while session.wait_for_alert(100) and not any(isinstance(a, lt.cache_flushed_alert) for a in session.pop_alerts()):
        pass
    os.close(os.open(marker, os.O_CREAT | os.O_WRONLY))
while True:
    time.sleep(1)
