# What hello is: one image, and one service made of it. `gapless explain` says what each line leads to.

project "hello" {}

# An image is built in layers: base, then what Packer and Puppet make of it, then the files of the application.
# A layer is built again only when something that it is made of changed.
image "web" {
  base {
    suite    = "host" # the release of this host's own distribution; or a name such as "bookworm"
    packages = []     # beside a minimal system
  }

  packer {
    template  = "packer/hello.json" # its `null` builder is run, with the node's address and key as variables
    variables = {}
  }

  application {
    source      = "app"      # this folder of the commit …
    destination = "/srv/app" # … is here in the image
    owner       = "root"
  }
}

service "web" {
  image = "web"
  host  = "localhost" # the Host header that this service answers; "*" is any
  nodes = 3
  port  = 80

  # One process in the foreground: when it ends, the node has ended.
  command = ["/usr/local/sbin/apache-foreground"]

  # A new node gets traffic after so many passes in a row; one that fails so often in a row loses it.
  health {
    path     = "/healthz"
    interval = "250ms"
    timeout  = "2s"
    passes   = 2
    failures = 4
  }

  # The root of a node is read-only. These folders are empty and writable when it starts.
  writable    = ["/run", "/tmp"]
  environment = {}

  resources {
    memory = "256MiB"
    cpus   = "1.0"
  }

  rollout {
    floor    = 3     # never fewer ready nodes than this
    drain    = "30s" # how long an old node may finish what it began
    progress = "60s" # how long the new nodes may take to pass the gate
    bake     = "5m"  # how long the old group stays warm for the way back
  }
}
