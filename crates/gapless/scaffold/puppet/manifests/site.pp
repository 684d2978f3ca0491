# What every node of @NAME@/web is.
#
# Nothing here starts a service: a node runs one command (see `command` in gapless.hcl), and Puppet runs only while the image is built.
node default {
  include web
}
