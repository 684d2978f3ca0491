# On one machine nothing is needed here: gapless.hcl says it all. What surrounds the service (a DNS record, a firewall, an
# account at a certificate authority) is declared in this folder, so that it is reviewed and versioned with the application.

terraform {
  required_version = ">= 1.5"
}

variable "domain" {
  description = "The name under which @NAME@ is reached"
  type        = string
  default     = "localhost"
}

output "address" {
  description = "Where @NAME@ answers"
  value       = "http://${var.domain}/"
}
