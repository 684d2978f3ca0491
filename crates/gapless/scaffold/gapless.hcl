# What @NAME@ is: one image, and one service made of it.
# `gapless deploy` builds a commit and gives it the traffic; `gapless explain` tells what each line led to.

project "@NAME@" {}

# An image is built in layers: base, then what Packer and Puppet make of it, then the files of the application.
# A layer is built again only when something that it is made of changed: a change in app/ starts neither Packer nor Puppet.
image "web" {
  base {
    suite    = "host" # the release of this machine's own distribution; or a name such as "bookworm"
    packages = []     # Debian packages beside a minimal system
  }

  packer {
    template  = "packer/web.json" # its `null` builder is run against a build node, whose address and key come as variables
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
  host  = "*" # the Host header that this service answers, such as "www.example.com"; "*" is any
  nodes = 2   # how many nodes serve
  port  = 80  # where the command listens, inside its node

  # One process in the foreground: when it ends, the node has ended and is replaced.
  command = ["/usr/local/sbin/web-foreground"]

  # A new node gets traffic after so many passes in a row; any status from 200 to 299 passes.
  health {
    path     = "/healthz"
    interval = "250ms"
    timeout  = "2s"
    passes   = 2
    failures = 4
  }

  # The root of a node is read-only. These folders are empty and writable when it starts, and gone with it.
  writable    = ["/run", "/tmp"]
  environment = {}
  # volumes   = { data = "/var/lib/web" } # named folders of the host that outlive nodes

  resources {
    memory = "256MiB"
    cpus   = "1.0"
  }

  rollout {
    floor    = 2     # never fewer ready nodes than this
    drain    = "30s" # how long an old node may finish what it began
    progress = "60s" # how long the new nodes may take to pass their checks
    bake     = "5m"  # how long the old nodes stay warm: going back is one step then

    # All nodes at once is the default. Some after others:
    # strategy = "rolling" # with `surge = 1`: one node more than `nodes` at any time; it keeps nothing warm, so `bake` goes
    #
    # Or a small share of the traffic first, and more if the answers are as good as those of the old nodes:
    # strategy = "canary"
    # step {
    #   percent = 5
    #   pause   = "2m" # or "person": until `gapless promote`
    # }
    # analysis {
    #   error_margin   = "0.5%"
    #   latency_margin = "20%"
    # }
    #
    # freeze = ["Fri 16:00 - Mon 08:00"] # UTC; `gapless deploy --urgent` does not wait
    # supersede = "replace" # a deployment that comes meanwhile ends this one, if that has not shifted yet; else it waits
    # backward_compatible = false # nothing goes back past this release (a migration that takes something away)
  }

  # release_command = ["/usr/local/bin/migrate"] # once for each release, in a node of the new image, before any traffic
  #
  # hooks {
  #   before_shift = ["/usr/local/bin/smoke-test"] # or an address to call; fails: the release is rejected
  #   after_shift  = ["/usr/local/bin/smoke-test"] # fails: the old nodes take the traffic back
  # }
  #
  # A worker is a service without `port` and `host`; services of the same `together` shift together.
  # All settings, with limits and defaults: docs/reference/gapless-hcl.md of gapless.
}
