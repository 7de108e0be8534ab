//! Names the shared library for the loader: by its ABI, so that a program finds one that it can call.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Has to be that of `PT5_ABI`; `install` asks the library for it.
    const ABI: u32 = 1;
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux" | "android" | "freebsd" | "netbsd" | "openbsd") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libpocket_t5.so.{ABI}");
        }
        Ok("macos" | "ios") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libpocket_t5.{ABI}.dylib");
        }
        _ => {}
    }
}
