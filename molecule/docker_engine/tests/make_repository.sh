#!/bin/sh
# Runs on the machine: an apt repository with a key of its own, over HTTP on loopback, laid out as Docker's. The packages are
# Debian's, under the names of Docker's: a stand-in for the repository, not for what is in it.
# make_repository.sh FOLDER SUITE PORT
set -eu
folder=$1 suite=$2 port=$3
export DEBIAN_FRONTEND=noninteractive GNUPGHOME="$folder/gnupg"
apt-get -qq update
apt-get -qq --yes --no-install-recommends install apt-utils gnupg >/dev/null

rm -rf "$folder"
mkdir -p "$folder/debian/dists/$suite/stable/binary-amd64" "$folder/debian/pool" "$folder/work" "$GNUPGHOME"
chmod 0700 "$GNUPGHOME"
chmod 0755 "$folder"
cd "$folder/work"
for pair in docker.io:docker-ce docker-cli:docker-ce-cli containerd:containerd.io docker-buildx:docker-buildx-plugin \
    docker-compose:docker-compose-plugin runc:runc-of-docker; do
    old=${pair%%:*} new=${pair#*:}
    (cd /var/cache/apt/archives && apt-get -qq download "$old" && mv "${old}"_*.deb "$folder/work/$old.deb")
    dpkg-deb -R "$old.deb" "$new"
    # The real ones depend on each other by these names, and refuse the distribution's.
    sed -i -e "s/^Package: .*/Package: $new/" -e '/^Source:/d' -e '/^\(Recommends\|Suggests\|Breaks\|Replaces\|Provides\|Conflicts\):/d' \
        -e '/^Depends:/s/docker-cli\b/docker-ce-cli/g' -e '/^Depends:/s/containerd\b/containerd.io/g' -e '/^Depends:/s/runc\b/runc-of-docker/g' \
        "$new/DEBIAN/control"
    # A line of its own, before the description's continuation lines.
    sed -i "/^Description:/i Conflicts: $old" "$new/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone -b "$new" "$folder/debian/pool/$new.deb" >/dev/null
done

cd "$folder/debian"
apt-ftparchive packages pool > "dists/$suite/stable/binary-amd64/Packages"
apt-ftparchive -o "APT::FTPArchive::Release::Suite=$suite" -o "APT::FTPArchive::Release::Codename=$suite" \
    -o APT::FTPArchive::Release::Components=stable -o APT::FTPArchive::Release::Architectures=amd64 release "dists/$suite" > "$folder/Release"
mv "$folder/Release" "dists/$suite/Release"
gpg --batch --quiet --passphrase '' --quick-generate-key 'stand-in <test@example.com>' rsa3072 sign
gpg --batch --quiet --clearsign --output "dists/$suite/InRelease" "dists/$suite/Release"
gpg --batch --quiet --armor --output ./gpg --export
gpg --batch --quiet --passphrase '' --quick-generate-key 'stranger <other@example.com>' rsa3072 sign
gpg --batch --quiet --armor --output ./stranger.gpg --export other@example.com
systemctl reset-failed test-repository 2>/dev/null || true
systemd-run --quiet --unit test-repository python3 -m http.server "$port" --bind 127.0.0.1 --directory "$folder"
timeout 20 sh -c "until ss -ltn | grep -q 127.0.0.1:$port; do sleep 0.2; done"
