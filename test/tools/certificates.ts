import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCommand } from './run-command.ts'

/**
 * Certificates that openssl has made, in directories as libnbd and QEMU want them: `ca-cert.pem`, and `client-cert.pem` with
 * `client-key.pem`. All of them believe the authority of the server.
 */
export interface Certificates {
  /** Of the server, for localhost and 127.0.0.1. */
  server: { certificate: string; key: string; authorities: string }
  /** Of a client that the authority has signed. */
  trusted: string
  /** Of one that another authority has signed. */
  stranger: string
  /** Of one that has no certificate. */
  anonymous: string
  remove(): void
}

export async function makeCertificates(): Promise<Certificates> {
  const root = mkdtempSync(join(tmpdir(), 'certificates-'))
  const [trusted, stranger, anonymous, other] = ['trusted', 'stranger', 'anonymous', 'other'].map((name) => {
    mkdirSync(join(root, name))
    return join(root, name)
  }) as [string, string, string, string]
  await makeAuthority(trusted)
  await makeAuthority(other)
  for (const directory of [stranger, anonymous])
    copyFileSync(join(trusted, 'ca-cert.pem'), join(directory, 'ca-cert.pem'))
  await sign(trusted, join(root, 'server'), 'subjectAltName=DNS:localhost,IP:127.0.0.1', 'extendedKeyUsage=serverAuth')
  await sign(trusted, join(trusted, 'client'), 'extendedKeyUsage=clientAuth')
  await sign(other, join(stranger, 'client'), 'extendedKeyUsage=clientAuth')
  return {
    server: {
      certificate: join(root, 'server-cert.pem'),
      key: join(root, 'server-key.pem'),
      authorities: join(trusted, 'ca-cert.pem'),
    },
    trusted,
    stranger,
    anonymous,
    remove: () => rmSync(root, { recursive: true }),
  }
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']

async function makeAuthority(directory: string): Promise<void> {
  const files = ['-keyout', join(directory, 'ca-key.pem'), '-out', join(directory, 'ca-cert.pem')]
  const usage = ['-addext', 'keyUsage=critical,keyCertSign']
  await runCommand(['openssl', 'req', '-x509', ...NEW_KEY, '-subj', '/CN=authority', ...files, ...usage])
}

/** Makes `<path>-cert.pem` and `<path>-key.pem`. */
async function sign(authority: string, path: string, ...extensions: string[]): Promise<void> {
  const by = ['-CA', join(authority, 'ca-cert.pem'), '-CAkey', join(authority, 'ca-key.pem')]
  const files = ['-keyout', `${path}-key.pem`, '-out', `${path}-cert.pem`]
  const all = ['basicConstraints=critical,CA:FALSE', 'keyUsage=critical,digitalSignature', ...extensions]
  const usage = all.flatMap((extension) => ['-addext', extension])
  await runCommand(['openssl', 'req', '-x509', ...by, ...NEW_KEY, '-subj', '/CN=collie', ...files, ...usage])
}
