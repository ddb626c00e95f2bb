import type net from 'node:net'
import tls from 'node:tls'
import { readTextFile } from './files.ts'

/** What this process shows of itself, and whom it believes. */
export interface TlsIdentity {
  readonly context: tls.SecureContext
  /** Clients need a certificate that one of the authorities has signed. */
  readonly asksForCertificate: boolean
}

/** Files in PEM: the certificate with those between it and the root, its key, and the authorities that clients' are signed by. */
export interface TlsFiles {
  certificate: string
  key: string
  /** Null asks clients for no certificate. */
  authorities: string | null
}

/** Throws an Error that says what is wrong with the files. */
export function loadTlsIdentity({ certificate, key, authorities }: TlsFiles): TlsIdentity {
  const context = tls.createSecureContext({
    cert: readPem(certificate),
    key: readPem(key),
    ...(authorities !== null && { ca: readPem(authorities) }),
  })
  return { context, asksForCertificate: authorities !== null }
}

function readPem(file: string): string {
  const text = readTextFile(file)
  if (text === null) throw new Error(`${file} is not there`)
  return text
}

/** What `tls` does not declare, and its own server uses of the sockets that it makes. */
type ServerSide = tls.TLSSocket & {
  _handle: { verifyError(): Error | undefined } | null
  /** From now on what goes wrong is told as an 'error'. */
  _releaseControl(): boolean
}

/**
 * Goes on in TLS on a connected socket that is not read any more, as its server. Whatever the peer sends from here on has to be TLS. A failed
 * handshake closes the socket, and rejects.
 */
export function secureSocket(socket: net.Socket, { context, asksForCertificate }: TlsIdentity): Promise<tls.TLSSocket> {
  const secured = new tls.TLSSocket(socket, {
    isServer: true,
    secureContext: context,
    requestCert: asksForCertificate,
    rejectUnauthorized: asksForCertificate,
  }) as ServerSide
  secured.disableRenegotiation()
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      secured.destroy()
      reject(error)
    }
    secured.on('_tlsError', fail)
    secured.once('close', () => reject(new Error('the connection ended in the TLS handshake')))
    secured.once('secure', () => {
      // OpenSSL refuses a client without a certificate, and leaves it to us to look at one that nobody vouches for.
      const refusal = asksForCertificate ? secured._handle?.verifyError() : undefined
      if (refusal) return fail(refusal)
      secured._releaseControl()
      resolve(secured)
    })
  })
}
